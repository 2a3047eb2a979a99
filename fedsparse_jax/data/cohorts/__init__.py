"""Open cohorts by name: one file for each layout in which they are published. They are registered in `scan_sources`."""
