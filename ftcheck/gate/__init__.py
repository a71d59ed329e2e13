"""What did a change do? Baselines and comparisons."""
