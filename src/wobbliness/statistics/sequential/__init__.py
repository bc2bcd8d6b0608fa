"""Sequential tests that decide with the fewest draws."""
