"""``spatialwhisperer encoders``: which encoders there are, and which of them work without a network connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialwhisperer.cli.errors import UsageError, one_line
from spatialwhisperer.cli.text_table import text_table
from spatialwhisperer.encoders.catalogue import encoder_class, list_encoders

if TYPE_CHECKING:
    from argparse import Namespace

_HEADINGS = ("name", "modality", "loader", "gated", "offline", "licence")


def run(options: Namespace) -> int:
    """Print the table of encoders."""
    try:
        registered = list_encoders(options.modality)
    except ValueError as error:
        raise UsageError(one_line(error)) from error
    rows = [_HEADINGS]
    for name, modality, licence, gated in zip(
        registered.index, registered["modality"], registered["licence"], registered["gated"], strict=True
    ):
        kind = encoder_class(str(name), str(modality))
        loader = kind.__module__.partition(".")[0] if kind.library == "spatialwhisperer" else kind.library
        rows.append((str(name), str(modality), loader, _yes(gated), _yes(kind.is_here(str(name))), str(licence)))
    print(text_table(rows))
    print(
        "\nloader: package that opens it. gated: weights must be requested from their authors. offline: opens without a download.\n"
        "Any timm model is an image encoder too."
    )
    return 0


def _yes(value: object) -> str:
    return "yes" if value else "no"
