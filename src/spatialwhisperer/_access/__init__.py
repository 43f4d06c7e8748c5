"""The one place that knows how AnnData and SpatialData differ.

Everything else opens a `Slide` and asks it for table, images, centres, microns per pixel and sections.
"""
