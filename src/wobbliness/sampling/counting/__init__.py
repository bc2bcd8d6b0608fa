"""Votes counted: image by image, in groups, or on a device."""
