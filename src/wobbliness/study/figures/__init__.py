"""Parts of figures that several claims share."""
