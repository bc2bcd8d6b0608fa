"""Training of the networks of a study: networks, data, training loop."""
