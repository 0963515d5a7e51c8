"""Checked patterns to plans: meaning, relations, tiles, loops, reports."""
