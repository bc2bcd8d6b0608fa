"""The inputs and outputs of models: layouts, pixel ranges, outputs."""
