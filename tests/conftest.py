from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session", autouse=True)
def float32() -> Iterator[None]:
    """The same numbers on every processor: bfloat16 has tests of its own."""
    import spatialwhisperer as sw

    with sw.settings.override(precision="float32"):
        yield


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder with the real sections; a test that needs it skips where it is absent."""
    folder = os.environ.get("SPATIALWHISPERER_TEST_DATA")
    if not folder or not Path(folder, "her2st", "sections.csv").is_file():
        pytest.skip("needs the real sections: set SPATIALWHISPERER_TEST_DATA to the folder that holds her2st/")
    return Path(folder)


@pytest.fixture(scope="session")
def simulated() -> Any:
    """Three small sections with image features, and a labelled reference. Read only: copy what you change."""
    import spatialwhisperer as sw

    out = sw.datasets.simulate_sections(3, 120, n_genes=150, n_reference_cells=250, random_state=0)
    for section in out.sections.values():
        sw.pp.embed_images(section, tile_um=80, tile_px=64)
    return out


@pytest.fixture(scope="session")
def labels(simulated: Any) -> dict[str, str]:
    """Cell type to the caption it was trained with."""
    obs = simulated.reference.obs
    pairs = dict(zip(obs["cell_type"], obs["text"], strict=True))
    return {str(name): str(pairs[name]) for name in obs["cell_type"].cat.categories}


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="session")
def model(simulated: Any, run_folder: Path) -> Any:
    """A model of the first two sections and the reference. Read only."""
    import spatialwhisperer as sw

    data = [simulated.sections["P1"], simulated.sections["P2"], simulated.reference]
    image = sw.tl.ImageFeatures(tile_um=80, tile_px=64)
    return sw.tl.train(data, preset="spatialwhisperer", image=image, folder=run_folder)


@pytest.fixture
def section(simulated: Any) -> Any:
    """The section that the model has not seen, with tables and shapes of its own."""
    import spatialdata as sd

    held_out = simulated.sections["P3"]
    return sd.SpatialData(
        images=dict(held_out.images),
        shapes={name: shapes.copy() for name, shapes in held_out.shapes.items()},
        tables={"table": held_out["table"].copy(), "cells": held_out["cells"].copy()},
    )


@pytest.fixture
def adata(section: Any) -> Any:
    """The same section as an AnnData with its image in ``.uns['spatial']``."""
    import numpy as np

    table = section["table"].copy()
    del table.uns["spatialdata_attrs"]
    pixels = np.moveaxis(section.images["P3_image"]["scale0"]["image"].to_numpy(), 0, -1)
    table.uns["spatial"] = {"P3": {"images": {"fullres": pixels}, "scalefactors": {"microns_per_pixel": 0.5}}}
    return table


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    """Set the umask until the end of the test."""
    before = os.umask(0o022)
    os.umask(before)

    def set_it(mask: int) -> None:
        os.umask(mask)

    yield set_it
    os.umask(before)


@pytest.fixture
def ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions count, also where the tests run as a user who may write everywhere."""
    can = os.access

    def access(path: Any, wanted: int) -> bool:
        return can(path, wanted) and (not wanted & os.W_OK or bool(os.stat(path).st_mode & 0o200))

    monkeypatch.setattr(os, "access", access)
