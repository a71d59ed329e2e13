"""The steps of a fine-tuning run, each a function that takes what the one before returned.

```python
recipe = ftcheck.load_recipe("quickstart")
tokenizer = load_tokenizer(recipe)
tokens = tokenize(load_data(recipe), tokenizer, recipe)
model = wrap(load_base(recipe, tokenizer), recipe)
trainer = build_trainer(model, tokens, tokenizer, recipe, Path("checkpoints"))
trainer.train()
save(model, tokenizer, recipe, Path("adapter"))
loaded, tokenizer = reload(recipe, Path("adapter"))
print(generate(loaded, tokenizer, recipe))
```

`run` does all of it, and compares, measures and records on the way.
"""

from ftcheck.pipeline.adapter import count_parameters, wrap
from ftcheck.pipeline.data import RawData, load_data
from ftcheck.pipeline.folder import RunFolder
from ftcheck.pipeline.generation import generate
from ftcheck.pipeline.model import load_base
from ftcheck.pipeline.result import RunResult
from ftcheck.pipeline.runner import Interrupted, run
from ftcheck.pipeline.saving import compare, probe_logits, reload, save
from ftcheck.pipeline.tokens import TokenizedData, load_tokenizer, tokenize
from ftcheck.pipeline.training import build_trainer, evaluate

__all__ = [
    "Interrupted",
    "RawData",
    "RunFolder",
    "RunResult",
    "TokenizedData",
    "build_trainer",
    "compare",
    "count_parameters",
    "evaluate",
    "generate",
    "load_base",
    "load_data",
    "load_tokenizer",
    "probe_logits",
    "reload",
    "run",
    "save",
    "tokenize",
    "wrap",
]
