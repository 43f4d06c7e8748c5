"""From rows to tiles: where each tile lies, and reading them block by block."""
