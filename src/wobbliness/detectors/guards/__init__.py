"""Guards of single inputs: fitted on clean inputs, they judge one input after another."""
