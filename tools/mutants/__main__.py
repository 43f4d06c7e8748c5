"""Seed faults in copies of the package and count how many the fast tests notice: ``make mutants``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tools.mutants.reach import CACHE, Near, measured
from tools.mutants.report import Equivalent, Figures, described
from tools.mutants.sample import all_mutations, draw
from tools.mutants.trial import Laboratory, Trial

ENOUGH = 0.95


def main() -> int:
    """Try the faults and print what became of them; the exit code is 1 where too few were noticed."""
    asked = _arguments()
    CACHE.mkdir(exist_ok=True)
    stored = CACHE / f"trials-{asked.only or 'all'}-{asked.n}-{asked.seed}.json".replace("/", "_")
    equivalent = Equivalent.read()
    if not asked.report:
        _store(stored, _trials(asked, stored))
    trials = [Trial(**trial) for trial in json.loads(stored.read_text())]
    figures = Figures.of(trials, equivalent)
    command = _command(asked)
    print(f"\n{figures.table()}\n")
    for trial in trials:
        if not trial.noticed:
            reason = equivalent.reason(trial)
            print(described(trial), *([f"    without effect: {reason}"] if reason else []), sep="\n")
    if asked.write:
        asked.write.write_text(f"`{command}`\n\n{figures.table()}\n", encoding="utf-8")
    return int(figures.proportion() < ENOUGH)


def _store(path: Path, trials: list[Trial]) -> None:
    path.write_text(json.dumps([trial.as_json() for trial in trials], indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--n", type=int, default=120, help="number of faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="part of the path of the files in which faults are seeded")
    parser.add_argument(
        "--limit", type=float, default=60.0, help="seconds of tests for each fault, the most specific first"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the last measurement of which test reaches which line"
    )
    parser.add_argument(
        "--near",
        action="store_true",
        help="measure nothing, and take the fast tests of the files that are nearest to a module by its imports: at most as many faults are noticed",
    )
    parser.add_argument("--again", action="store_true", help="of a sample tried before, try what was not noticed")
    parser.add_argument("--report", action="store_true", help="try nothing, report on a sample tried before")
    parser.add_argument("--write", type=Path, help="file for the table, Markdown")
    return parser.parse_args()


def _command(asked: argparse.Namespace) -> str:
    only = f" --only {asked.only}" if asked.only else ""
    near = " --near" if asked.near else ""
    return f'make mutants ARGS="--n {asked.n} --seed {asked.seed} --limit {asked.limit:g}{only}{near}"'


def _trials(asked: argparse.Namespace, stored: Path) -> list[Trial]:
    laboratory = Laboratory(Path.cwd(), asked.limit)
    try:
        root = laboratory.root
        reach = Near.of(root) if asked.near else measured(root, laboratory.environment, keep=asked.keep)
        faults = draw(all_mutations(laboratory.root, asked.only), asked.n, asked.seed)
        earlier = [Trial(**trial) for trial in json.loads(stored.read_text())] if asked.again else []
        done = {(trial.file, trial.line, trial.before, trial.after): trial for trial in earlier if trial.noticed}
        laboratory.prepare()
        trials = []
        for i, fault in enumerate(faults):
            key = (fault.file, fault.line, *fault.lines((laboratory.root / fault.file).read_bytes()))
            trial = done.get(key) or laboratory.attempt(fault, reach)
            trials.append(trial)
            _store(stored, [*trials, *(t for t in earlier if t not in trials)])
            print(f"[{i + 1}/{len(faults)}] {described(trial)}", flush=True)
        return _sure(trials, laboratory)
    finally:
        laboratory.close()


def _sure(trials: list[Trial], laboratory: Laboratory) -> list[Trial]:
    """A test that fails without a fault has noticed none."""
    broken = laboratory.fails_anyway(sorted({trial.by for trial in trials if "::" in trial.by}))
    for test in sorted(broken):
        print(f"fails without a fault: {test}", flush=True)
    return [
        Trial(**{**trial.as_json(), "outcome": "survived", "by": ""}) if trial.by in broken else trial
        for trial in trials
    ]


if __name__ == "__main__":
    raise SystemExit(main())
