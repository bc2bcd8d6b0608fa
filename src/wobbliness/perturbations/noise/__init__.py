"""Noise: values of an input are changed at random, each on its own."""
