"""Run the campaigns for long and print the table of figures: ``make torture``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.torture.frame import HEAD, SEED, table
from tests.torture.rows import CAMPAIGNS


def main() -> int:
    """Run what was asked for; the exit code is 1 where a trial failed."""
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--only", nargs="*", help="names of campaigns, or the beginning of names")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of trials")
    parser.add_argument("--write", type=Path, help="file for the table, Markdown")
    chosen = parser.parse_args()
    wanted = [c for c in CAMPAIGNS if not chosen.only or c.name.startswith(tuple(chosen.only))]
    print(HEAD)
    done = []
    for campaign in wanted:
        started = time.perf_counter()
        done.append(campaign.run(max(1, round(campaign.long * chosen.scale)), seed=chosen.seed))
        print(done[-1].row(), f"{time.perf_counter() - started:.0f} s", flush=True)
        for failure in done[-1].failures:
            print(f"  {failure}", file=sys.stderr, flush=True)
    if chosen.write:
        chosen.write.write_text(table(done) + "\n", encoding="utf-8")
    return int(any(counts.failures for counts in done))


if __name__ == "__main__":
    raise SystemExit(main())
