"""Nuclei on H&E: the steps behind :func:`spatialwhisperer.pp.nuclei`, on arrays."""
