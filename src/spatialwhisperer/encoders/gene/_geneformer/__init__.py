"""The parts of Geneformer: its gene tokens, its files, and its network."""
