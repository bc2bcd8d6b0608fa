"""Self-contained pages, the style of plots, tables as files."""
