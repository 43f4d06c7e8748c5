"""The loops of `stain_texture`, compiled for a processor and as torch operations."""
