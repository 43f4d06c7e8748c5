"""Benchmarks in the manner of HEST and HESCAPE on a folder of sections, and the card of such a folder."""
