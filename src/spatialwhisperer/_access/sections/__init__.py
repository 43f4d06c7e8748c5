"""Sections of an object: their rows, places and images, and the scale of each."""
