"""Folders of tables with a table of metadata: which sections there are, whose they are, and opening them one after the other."""
