"""What turns a recipe, a live trainer or an unmodified script into a subject of checks."""
