"""What a study does for each kind of cell."""
