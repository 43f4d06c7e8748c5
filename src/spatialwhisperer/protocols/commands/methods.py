"""Protocols of gene encoders, intervals and refinement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer.protocols.commands.common import common

if TYPE_CHECKING:
    from spatialwhisperer.protocols.commands.common import Commands


def add(commands: Commands) -> None:
    """Add the commands of this file."""
    _batches(commands)
    _coverage(commands)
    _refine(commands)


def _batches(commands: Commands) -> None:
    parser = commands.add_parser("batches", help="how far scVI and scANVI bring eight patients together")
    common(parser, "batches", seeds=False)
    parser.set_defaults(run=_run_batches)


def _run_batches(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols import batches

    batches.run(o["data"], o["out"], smoke=o["smoke"])


def _coverage(commands: Commands) -> None:
    parser = commands.add_parser(
        "coverage", help="how often the intervals that the package reports hold the true value, on simulated sections"
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for coverage.csv and coverage.md")
    parser.add_argument("--repeats", type=int, default=1000, help="simulated sections for each interval and smoothness")
    parser.add_argument("--smoke", action="store_true", help="thirty sections: shows that it runs")
    parser.set_defaults(run=_run_coverage)


def _run_coverage(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols import coverage

    coverage.run(o["out"], repeats=o["repeats"], smoke=o["smoke"])


def _refine(commands: Commands) -> None:
    parser = commands.add_parser(
        "refine", help="contrastive refinement against its closed form, on real sections and in simulated worlds"
    )
    common(parser, "refinement")
    parser.add_argument(
        "--parts", nargs="+", default=["sections", "worlds"], choices=["sections", "worlds"], help="what is run"
    )
    parser.add_argument("--sizes", nargs="+", type=int, help="numbers of image–gene pairs in the simulated worlds")
    parser.set_defaults(run=_run_refine)


def _run_refine(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.refinement import comparison

    sizes = comparison.SIZES if o["sizes"] is None else tuple(o["sizes"])
    comparison.run(o["data"], o["out"], n_seeds=o["seeds"], sizes=sizes, parts=tuple(o["parts"]), smoke=o["smoke"])
