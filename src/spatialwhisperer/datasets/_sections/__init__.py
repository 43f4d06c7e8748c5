"""Sections of spots: their tables, and the elements that they become."""
