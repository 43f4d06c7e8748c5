"""Work on blocks of rows, on all cores."""
