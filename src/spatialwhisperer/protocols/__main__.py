"""Command line of the protocols: ``python -m spatialwhisperer.protocols <name> --data FOLDER``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from spatialwhisperer.protocols.commands import benchmarks, expression, labels, methods, papers, tissue

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a protocol by name."""
    parser = argparse.ArgumentParser(
        prog="python -m spatialwhisperer.protocols", description="Measure the package on real sections."
    )
    commands = parser.add_subparsers(dest="protocol_name", required=True)
    for group in (labels, expression, methods, tissue, papers, benchmarks):
        group.add(commands)
    options = vars(parser.parse_args(arguments))
    options.pop("run")(options)


if __name__ == "__main__":
    main()
