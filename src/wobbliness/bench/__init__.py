"""`wobbliness bench`: passes a second compared with the bare model."""
