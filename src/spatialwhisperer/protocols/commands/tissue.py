"""Protocols of scale, nuclei, and another tissue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer.protocols.commands.common import common

if TYPE_CHECKING:
    from spatialwhisperer.protocols.commands.common import Commands


def add(commands: Commands) -> None:
    """Add the commands of this file."""
    _scale(commands)
    _nuclei(commands)
    _nuclei_words(commands)
    _olfactory_bulb(commands)


def _scale(commands: Commands) -> None:
    parser = commands.add_parser(
        "scale", help="how often a wrong scale is noticed by the spots, and a correct one suspected"
    )
    common(parser, "scale", seeds=False)
    parser.set_defaults(run=_run_scale)


def _run_scale(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols import scale

    scale.run(o["data"], o["out"], smoke=o["smoke"])


def _nuclei(commands: Commands) -> None:
    parser = commands.add_parser("nuclei", help="nuclei that are found on H&E against those that people drew")
    common(parser, "nuclei", seeds=False)
    parser.add_argument("--method", default="watershed", choices=["watershed", "instanseg"])
    parser.add_argument("--weights", type=Path, help="local weights of the method")
    parser.set_defaults(run=_run_nuclei)


def _run_nuclei(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols import nuclei

    nuclei.run(o["data"], o["out"], method=o["method"], weights=o["weights"], smoke=o["smoke"])


def _nuclei_words(commands: Commands) -> None:
    parser = commands.add_parser(
        "nuclei-words", help="learn the words of nuclei that the image encoder nuclei comes with"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds her2st/")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for words.safetensors")
    parser.add_argument("--smoke", action="store_true", help="one section: shows that it runs")
    parser.set_defaults(run=_run_nuclei_words)


def _run_nuclei_words(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols import nuclei_words

    nuclei_words.run(o["data"], o["out"], smoke=o["smoke"])


def _olfactory_bulb(commands: Commands) -> None:
    parser = commands.add_parser(
        "olfactory-bulb", help="layers, few labels, spatial domains and expression in the mouse olfactory bulb"
    )
    common(parser, "olfactory_bulb")
    parser.set_defaults(run=_run_olfactory_bulb)


def _run_olfactory_bulb(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.olfactory_bulb import comparison

    comparison.run(o["data"], o["out"], n_seeds=o["seeds"], smoke=o["smoke"])
