"""What is timed. Every figure is a ratio within one run: two things side by side on one machine."""
