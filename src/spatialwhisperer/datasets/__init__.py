"""Sections to learn and test with: simulated ones, and public ones that are downloaded from their source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer._lazy import lazy_namespace

if TYPE_CHECKING:
    from spatialwhisperer.datasets.census import CensusTables, census
    from spatialwhisperer.datasets.folders.h5ad_folder import h5ad_folder
    from spatialwhisperer.datasets.folders.hest import hest
    from spatialwhisperer.datasets.folders.sections import SectionFolder
    from spatialwhisperer.datasets.her2st import her2st
    from spatialwhisperer.datasets.lizard import lizard
    from spatialwhisperer.datasets.olfactory_bulb import olfactory_bulb
    from spatialwhisperer.datasets.pannuke import pannuke
    from spatialwhisperer.datasets.papers.cscc import cscc
    from spatialwhisperer.datasets.papers.dlpfc import dlpfc
    from spatialwhisperer.datasets.papers.liver import liver
    from spatialwhisperer.datasets.papers.sections import PublishedSections
    from spatialwhisperer.datasets.pathocell import pathocell
    from spatialwhisperer.datasets.simulate import SimulatedData, simulate_sections

_PLACES = {
    "CensusTables": "datasets.census",
    "PublishedSections": "datasets.papers.sections",
    "SectionFolder": "datasets.folders.sections",
    "SimulatedData": "datasets.simulate",
    "census": "datasets.census",
    "cscc": "datasets.papers.cscc",
    "dlpfc": "datasets.papers.dlpfc",
    "h5ad_folder": "datasets.folders.h5ad_folder",
    "her2st": "datasets.her2st",
    "hest": "datasets.folders.hest",
    "liver": "datasets.papers.liver",
    "lizard": "datasets.lizard",
    "olfactory_bulb": "datasets.olfactory_bulb",
    "pannuke": "datasets.pannuke",
    "pathocell": "datasets.pathocell",
    "simulate_sections": "datasets.simulate",
}

__all__ = lazy_namespace(__name__, _PLACES)
