"""Counts of the rows of a table, and recognising rows seen before."""
