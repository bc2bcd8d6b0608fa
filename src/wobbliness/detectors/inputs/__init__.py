"""Checks of clean, judged and mixed-in inputs before a detector takes them."""
