"""What each part of the recipe of the embedded model contributes: the recipe with one part changed at a time."""
