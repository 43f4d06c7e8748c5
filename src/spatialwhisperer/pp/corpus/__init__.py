"""Corpora: features of many slides on disk, with what is known about where they are from."""
