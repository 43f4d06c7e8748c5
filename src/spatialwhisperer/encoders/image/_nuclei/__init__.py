"""Nuclei in H&E tiles, their measurements and their words: the steps behind the encoder ``nuclei``, on arrays."""
