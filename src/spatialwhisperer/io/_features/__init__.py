"""What features of tiles need: the files that hold them, and the slide that they belong to."""
