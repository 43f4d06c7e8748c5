"""Compare methods in one process: interleaved repeats, ratios of processor and of wall time with their spread, and peak memory.

A repeat runs every method once, one after the other, and its ratio is taken within it: load of the machine that lasts longer than a
repeat cancels. Memory is what the process holds at most in a call beyond what it held before it (Linux); NaN elsewhere.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OURS = "spatialwhisperer"


@dataclass(frozen=True)
class Row:
    """One path beside one peer. A ratio above one says that ours is faster, or needs less memory.

    Attributes
    ----------
    path, peer, unit
        What was compared.
    rate, peer_rate
        Items per second of wall time, median over the repeats.
    cpu_ratio, wall_ratio
        Median, least and largest over the repeats.
    peak_mib, peer_peak_mib
        Memory beyond what was held before the call, largest of the repeats.
    """

    path: str
    peer: str
    unit: str
    rate: float
    peer_rate: float
    cpu_ratio: tuple[float, float, float]
    wall_ratio: tuple[float, float, float]
    peak_mib: float
    peer_peak_mib: float


@dataclass(frozen=True)
class _Run:
    wall: float
    cpu: float
    mib: float


def arguments(doc: str | None, **defaults: Any) -> argparse.Namespace:
    """Options of a script: one for each default, and a file for the rows."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in defaults.items():
        several = {"nargs": "+", "type": type(value[0])} if isinstance(value, list) else {"type": type(value)}
        parser.add_argument(f"--{name.replace('_', '-')}", default=value, **several)
    parser.add_argument("--rows-file", type=Path, help="file to which the rows of the table are added, as JSON lines")
    return parser.parse_args()


def compare(
    path: str,
    methods: Mapping[str, Callable[[], Any]],
    *,
    items: Mapping[str, int] | int,
    unit: str,
    repeats: int,
    rows_file: Path | None = None,
) -> dict[str, Any]:
    """Run all methods in turn and print a line for each peer; the last result of each method.

    Parameters
    ----------
    path
        Name of the path.
    methods
        What is compared; ours is called `OURS`. All have run once before, so that nothing is compiled or imported here.
    items
        How many items a method handles in a call, where they differ: a slow peer may get fewer.
    unit
        Name of the items.
    repeats
        How often each method runs.
    rows_file
        File to which the rows are added.
    """
    n = dict.fromkeys(methods, items) if isinstance(items, int) else dict(items)
    runs: dict[str, list[_Run]] = {name: [] for name in methods}
    results = {}
    for _ in range(repeats):
        for name, method in methods.items():
            results[name] = None
            results[name], run = measured(method)
            runs[name].append(_Run(run.wall / n[name], run.cpu / n[name], run.mib))
    print(f"\n{path}")
    for name in methods:
        print(f"  {name:32s} {_rate(runs[name]):12,.0f} {unit}/s {max(r.mib for r in runs[name]):8,.0f} MiB", end="")
        if name == OURS:
            print()
            continue
        row = _row(path, name, unit, runs[OURS], runs[name])
        print(f"   ours: {_text(row.cpu_ratio)} x per CPU second, {_text(row.wall_ratio)} x per second")
        if rows_file is not None:
            with rows_file.open("a") as file:
                file.write(json.dumps(asdict(row)) + "\n")
    return results


def processor() -> str:
    """Name of the processor, and the units for matrices of low precision that it has."""
    import torch

    names = [line for line in lines_of("/proc/cpuinfo") if line.startswith("model name")]
    name = names[0].split(":", 1)[1].strip() if names else platform.processor()
    return f"{name}, {os.cpu_count()} cores, {offers()}; torch {torch.__version__} on {torch.get_num_threads()} threads, numpy {np.__version__}"


def offers() -> str:
    """Fastest units for matrices of the processor: "amx", "bf16" or "any"."""
    flags = next((line.split() for line in lines_of("/proc/cpuinfo") if line.startswith("flags")), [])
    return "amx" if "amx_bf16" in flags else "bf16" if "avx512_bf16" in flags else "any"


def _row(path: str, peer: str, unit: str, ours: list[_Run], theirs: list[_Run]) -> Row:
    pairs = list(zip(ours, theirs, strict=True))
    return Row(
        path,
        peer,
        unit,
        _rate(ours),
        _rate(theirs),
        _spread([b.cpu / a.cpu for a, b in pairs]),
        _spread([b.wall / a.wall for a, b in pairs]),
        max(r.mib for r in ours),
        max(r.mib for r in theirs),
    )


def _rate(runs: list[_Run]) -> float:
    return 1 / float(np.median([r.wall for r in runs]))


def _spread(ratios: list[float]) -> tuple[float, float, float]:
    return float(np.median(ratios)), min(ratios), max(ratios)


def _text(ratio: tuple[float, float, float]) -> str:
    return "{:.3g} ({:.3g} to {:.3g})".format(*ratio)


def measured(method: Callable[[], Any]) -> tuple[Any, _Run]:
    """What a call returns, and its wall and processor seconds and the memory in MiB beyond what was held before."""
    before = _forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    result = method()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return result, _Run(wall, max(cpu, 1e-9), _status("VmHWM") - before)


def _forget_peak() -> float:
    """Memory held now in MiB, after free memory went back to the system and the peak was set back to it."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return float("nan")
    return _status("VmRSS")


def _status(name: str) -> float:
    found = [line for line in lines_of("/proc/self/status") if line.startswith(name)]
    return int(found[0].split()[1]) / 1024 if found else float("nan")


def lines_of(path: str) -> list[str]:
    """Lines of a file; none where it cannot be read."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
