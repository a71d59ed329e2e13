"""Where the base model, the tokenizer and the data come from, and what stands in for them."""
