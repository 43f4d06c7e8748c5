"""Building the elements of a SpatialData: pyramids, squares, tables of tiles."""
