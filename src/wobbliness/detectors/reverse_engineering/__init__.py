"""Search for the trigger of each class of a network, by gradient descent."""
