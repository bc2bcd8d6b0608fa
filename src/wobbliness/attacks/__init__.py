"""What an adversary does: patterns on inputs, and poisoned training data."""
