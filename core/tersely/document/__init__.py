"""Documents: reading, checking and building recipes, jobs and config lists; needs no torch."""
