"""Perturbations of the network itself, by gates at its nodes."""
