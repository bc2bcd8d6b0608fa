"""Computation of each kind of cell."""
