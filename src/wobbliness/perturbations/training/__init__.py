"""Perturbations of a training set: what is voted on is a network trained on each copy."""
