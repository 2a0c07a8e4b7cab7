"""What the package needs and teaches nothing about: paths, progress bar, interrupts, provenance."""
