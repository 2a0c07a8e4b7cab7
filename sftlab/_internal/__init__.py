"""Internal helpers: paths, progress bar, interrupts, random state, value ranges, provenance."""
