"""What the loaders of published image encoders share."""
