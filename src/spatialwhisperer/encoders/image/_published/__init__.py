"""Facts about published image encoders, as a table, and what the loaders share."""
