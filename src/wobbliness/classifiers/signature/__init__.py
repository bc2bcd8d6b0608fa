"""What goes into a model and what comes out of it: layouts, pixel ranges, outputs."""
