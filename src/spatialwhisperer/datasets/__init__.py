"""Sections to learn and test with: simulated ones, and public ones that are downloaded from their source."""

from __future__ import annotations

from spatialwhisperer.datasets.her2st import her2st
from spatialwhisperer.datasets.lizard import lizard
from spatialwhisperer.datasets.pannuke import pannuke
from spatialwhisperer.datasets.pathocell import pathocell
from spatialwhisperer.datasets.simulate import SimulatedData, simulate_sections

__all__ = ["SimulatedData", "her2st", "lizard", "pannuke", "pathocell", "simulate_sections"]
