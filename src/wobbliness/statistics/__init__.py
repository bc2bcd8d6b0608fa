"""Entropy, tests, curves and sequential tests; numpy and scipy only."""
