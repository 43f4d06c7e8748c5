"""Presets: the recipes of published methods, and where they differ from what was published."""
