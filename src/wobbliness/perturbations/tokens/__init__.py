"""Perturbations of token ids."""
