"""Running the cells of a study: processes, Ray, locks, status."""
