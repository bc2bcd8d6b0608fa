"""Tests of a batch of inputs against clean ones."""
