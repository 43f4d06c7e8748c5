"""Compiled kernels keep their machine code wherever it can be written, and work where it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_SOURCE = """
from spatialwhisperer._compute.kernels import kernel

@kernel(nogil=True)
def twice(x):
    return 2 * x
"""
_CALL = "import numba, twice; print(twice.twice(21), twice.twice._cache.cache_path, repr(numba.config.CACHE_DIR))"


def _called(folder: Path, cache: Path, home: Path) -> str:
    out = subprocess.run(
        [sys.executable, "-c", _CALL],
        cwd=folder,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]),
            "SPATIALWHISPERER_CACHE_DIR": str(cache),
            "XDG_CACHE_HOME": str(home),
            "HOME": str(home),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, out.stderr
    return out.stdout.strip()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A module beside which nothing can be written, not even by an administrator."""
    there = tmp_path / "installed"
    there.mkdir()
    (there / "twice.py").write_text(_SOURCE)
    (there / "__pycache__").write_text("a file where a folder would be")
    (tmp_path / "file").write_text("")
    return there


@pytest.mark.slow
def test_code_is_kept_in_our_cache_folder_where_nothing_else_can_be_written(folder, tmp_path) -> None:
    cache = tmp_path / "cache"
    said = _called(folder, cache, tmp_path / "file")
    assert said.startswith(f"42 {cache / 'kernels'}")
    assert said.endswith("''")
    kept = sorted(cache.rglob("twice*.nb?"))
    assert {path.suffix for path in kept} == {".nbi", ".nbc"}
    before = [path.stat().st_mtime_ns for path in kept]
    _called(folder, cache, tmp_path / "file")
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_a_kernel_compiles_for_itself_where_nothing_can_be_written_at_all(folder, tmp_path) -> None:
    assert _called(folder, tmp_path / "file", tmp_path / "file").startswith("42 None")
