"""Attacks of an adversary: patterns on inputs, and poisoned training data."""
