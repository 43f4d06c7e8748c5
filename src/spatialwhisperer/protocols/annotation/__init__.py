"""Labels for real sections from their images alone, by models that never saw an image with a text."""
