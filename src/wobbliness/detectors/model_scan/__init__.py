"""The scan of a model: reverse-engineered triggers, and what they do."""
