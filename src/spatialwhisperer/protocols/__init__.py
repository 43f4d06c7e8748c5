"""Protocols that produce the published tables: ``python -m spatialwhisperer.protocols <name> --data <folder>``."""
