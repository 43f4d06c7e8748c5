"""GeoJSON as QuPath reads and writes it."""
