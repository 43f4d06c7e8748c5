"""Files of TIFF that are read lazily."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest

import spatialwhisperer as sw
from tests.io.conftest import pixels_of

if TYPE_CHECKING:
    from pathlib import Path

HANDLES = "/proc/self/fd"


def is_open(path: Path) -> bool:
    """Whether this process holds the file open."""
    found = (f"{HANDLES}/{name}" for name in os.listdir(HANDLES))
    return str(path) in [os.readlink(one) for one in found if os.path.islink(one)]


@pytest.mark.skipif(not os.path.isdir(HANDLES), reason="needs the open files of a process as a folder")
@pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")
def test_the_file_is_closed_when_the_slide_is_gone(slide_file: Path) -> None:
    sdata = sw.io.read_slide(slide_file)
    pixels_of(sdata)
    assert is_open(slide_file)
    del sdata
    gc.collect()
    assert not is_open(slide_file)
