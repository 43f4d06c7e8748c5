"""What a folder of sections holds: its reading, its pixels, its duplicates and its splits."""
