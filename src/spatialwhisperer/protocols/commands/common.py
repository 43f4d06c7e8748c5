"""Arguments that most commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

Commands = argparse._SubParsersAction


def common(parser: argparse.ArgumentParser, name: str, *, seeds: bool = True) -> None:
    """Add the folder of the data, the folder of the results, the number of runs where there are several, and the short run."""
    parser.add_argument("--data", type=Path, required=True, help="folder with the data")
    parser.add_argument("--out", type=Path, default=Path("results"), help=f"folder for {name}.csv and {name}.md")
    if seeds:
        parser.add_argument("--seeds", type=int, default=3, help="training runs of each split")
    parser.add_argument("--smoke", action="store_true", help="one split, one seed, few spots: shows that it runs")
