"""Run the speed scripts and compare them with the goals.

usage: python benchmarks/bench.py [NAME ...]        (make bench; --list names the scripts)

Prints one table: path, peer, rates, ratios per processor second and per second (median, least and largest over interleaved repeats) and
peak memory. Above one, a ratio says that ours is faster. Exits with 1 where the median ratio per processor second, or the memory, misses
its goal in goals.toml.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

from _measure import offers, processor

HERE = Path(__file__).parent

SCRIPTS = (
    "tiles",
    "augmentation",
    "image_encoders",
    "losses",
    "rank_tokens",
    "gene_sentences",
    "scores",
    "retrieval",
    "metrics",
)


def rows_of(name: str, folder: Path) -> list[dict[str, Any]]:
    """Rows of the table that a script measures."""
    start, file = time.monotonic(), folder / f"{name}.jsonl"
    print(f"{name} ... ", end="", flush=True)
    done = subprocess.run([sys.executable, HERE / f"{name}.py", "--rows-file", file], capture_output=True, text=True)
    print(f"{time.monotonic() - start:.0f} s")
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{done.stderr}\n{name}.py failed.")
    return [json.loads(line) for line in file.read_text().splitlines()]


def line(row: dict[str, Any], goal: str) -> str:
    """A row of the table."""
    ratios = ["{:.3g} ({:.3g} to {:.3g})".format(*row[kind]) for kind in ("cpu_ratio", "wall_ratio")]
    rates = f"{row['rate']:,.0f} | {row['peer_rate']:,.0f} {row['unit']}/s"
    memory = f"{row['peak_mib']:,.0f} | {row['peer_peak_mib']:,.0f}"
    return f"| {row['path']} | {row['peer']} | {rates} | {ratios[0]} | {ratios[1]} | {memory} | {goal} |"


def judged(row: dict[str, Any], goals: dict[str, Any]) -> tuple[str, bool]:
    """The goal of a row in words, and whether it is missed."""
    texts, missed = [], False
    for goal in goals["goal"]:
        if row["path"].startswith(goal["path"]) and row["peer"].startswith(goal["peer"]):
            least = goal["ratio"].get(offers(), goal["ratio"]["any"])
            missed |= row["cpu_ratio"][0] < least
            texts.append(f"{least:g}" + (" missed" if row["cpu_ratio"][0] < least else ""))
    for limit in goals["memory"]:
        if row["path"].startswith(limit["path"]) and row["peak_mib"] > limit["mib"]:
            missed = True
            texts.append(f"{limit['mib']} MiB missed")
    return ", ".join(texts), missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="scripts to run; all where none is named")
    parser.add_argument("--list", action="store_true", help="name the scripts and end")
    args = parser.parse_args()
    if args.list:
        print(*SCRIPTS, sep="\n")
        return
    if unknown := sorted(set(args.names) - set(SCRIPTS)):
        parser.error(f"unknown: {', '.join(unknown)}; choose of {', '.join(SCRIPTS)}")
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for name in args.names or SCRIPTS for row in rows_of(name, Path(folder))]
    goals = tomllib.loads((HERE / "goals.toml").read_text())
    print(f"\n{processor()}\n")
    print("| path | peer | ours | peer | per CPU second | per second | MiB, ours | MiB, peer | goal |")
    print("|" + " --- |" * 9)
    failed = 0
    for row in rows:
        goal, missed = judged(row, goals)
        failed += missed
        print(line(row, goal))
    print(f"\n{failed} of {len(rows)} rows miss a goal." if failed else "\nAll goals are met.")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
