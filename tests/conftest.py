from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Small models on a shared machine: more threads than one only fight each other."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder with the real sections; a test that needs it skips where it is absent."""
    folder = os.environ.get("SPATIALWHISPERER_TEST_DATA")
    if not folder or not Path(folder, "her2st", "sections.csv").is_file():
        pytest.skip("needs the real sections: set SPATIALWHISPERER_TEST_DATA to the folder that holds her2st/")
    return Path(folder)
