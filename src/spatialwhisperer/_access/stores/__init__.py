"""Slides in stores: SpatialData (.zarr) and AnnData (.h5ad), read as a whole and written back whole or not at all."""
