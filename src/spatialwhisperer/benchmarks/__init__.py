"""Protocols that produce the published tables: ``python -m spatialwhisperer.benchmarks <name> --data <folder>``."""
