"""Features on disk, and batches that are read from them block by block."""
