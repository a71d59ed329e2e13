"""The pytest plugin: recipes and scripts as tests, fixtures, GPU tests, budgets in VRAM."""
