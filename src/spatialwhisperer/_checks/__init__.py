"""Checks of single arguments, the same for every function."""
