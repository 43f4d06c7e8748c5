"""Reading and writing AnnData and SpatialData. No other part of the package needs to know how the two differ.

Functions open a `spatialwhisperer._access.slide.Slide` and read table, sections, images, positions and scale from it.
"""
