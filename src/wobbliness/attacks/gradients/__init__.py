"""Gradients of frozen networks with respect to the pixels."""
