"""The embedded model: its labels, its recipe, and how the recipe does on patients that it has not seen."""
