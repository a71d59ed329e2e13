"""Results as text; knows results, and nothing of how they were made."""
