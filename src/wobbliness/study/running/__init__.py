"""Who does the cells: processes, Ray, locks, status."""
