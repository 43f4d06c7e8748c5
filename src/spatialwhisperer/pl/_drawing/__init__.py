"""What the pictures are drawn with: axes, legends, colours, sections and marks."""
