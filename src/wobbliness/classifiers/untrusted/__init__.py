"""Checks before a stranger's model file is opened."""
