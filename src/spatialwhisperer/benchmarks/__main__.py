"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
from pathlib import Path


def main(arguments: list[str] | None = None) -> None:
    """Run a benchmark by name."""
    parser = argparse.ArgumentParser(prog="python -m spatialwhisperer.benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    annotation = commands.add_parser(
        "annotation", help="label real sections that were not in training, without image–text pairs"
    )
    annotation.add_argument("--data", type=Path, required=True, help="folder that holds her2st/ and singlecell/")
    annotation.add_argument(
        "--out", type=Path, default=Path("results"), help="folder for annotation.csv and annotation.md"
    )
    annotation.add_argument("--seeds", type=int, default=3, help="training runs of each split")
    annotation.add_argument("--nulls", type=int, default=50, help="shufflings of the image–gene pairs of each split")
    annotation.add_argument("--smoke", action="store_true", help="one split, one seed, few spots: shows that it runs")
    options = parser.parse_args(arguments)
    from spatialwhisperer.benchmarks.annotation import run

    run(options.data, options.out, n_seeds=options.seeds, n_nulls=options.nulls, smoke=options.smoke)


if __name__ == "__main__":
    main()
