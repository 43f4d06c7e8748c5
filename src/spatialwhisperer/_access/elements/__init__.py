"""The elements of an object: pyramids, squares and tables that are made, and what the elements of a platform state about the scale."""
