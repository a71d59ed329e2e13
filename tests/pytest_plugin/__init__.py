"""The plugin, through pytester."""
