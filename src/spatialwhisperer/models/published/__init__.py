"""The published checkpoint of SpatialWhisperer: found, read without unpickling, and converted once."""
