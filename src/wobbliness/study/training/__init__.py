"""Networks, data and the training of what a study measures."""
