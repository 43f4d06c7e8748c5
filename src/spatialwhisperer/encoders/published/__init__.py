"""Facts about the published encoders, as a table."""
