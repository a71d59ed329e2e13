"""Tests of what turns scripts and trainers into subjects."""
