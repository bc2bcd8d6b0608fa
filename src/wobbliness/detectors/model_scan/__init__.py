"""Scan of a model: reverse-engineered triggers, and their effects."""
