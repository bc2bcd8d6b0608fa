"""Forward passes per second of `wobbliness bench`, compared with the bare model."""
