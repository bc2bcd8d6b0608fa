"""Mixtures: parts of an input are hidden, or replaced by those of other inputs."""
