"""Records of cells: written, checked, packed."""
