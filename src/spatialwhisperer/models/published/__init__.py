"""Models that others published, opened as models of this package."""
