"""Data sets of published methods, read from a folder with the files as they were published."""
