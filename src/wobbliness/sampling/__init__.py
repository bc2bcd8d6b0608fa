"""Perturb each input n times, let the classifier predict, count the votes."""
