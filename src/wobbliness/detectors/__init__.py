"""Detectors: tests of batches, guards of single inputs, scans of models."""
