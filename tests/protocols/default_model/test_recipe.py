"""What the embedded model is trained on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.default_model import recipe
from spatialwhisperer.protocols.default_model.recipe import CELLS, TrainingData, TrainingRecipe, load

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that are looked for, and what is read in their place."""
    for name in ("A1", "A2", "C3", "D6"):
        (tmp_path / "her2st" / name).mkdir(parents=True)
        (tmp_path / "her2st" / name / "counts.h5ad").touch()
    (tmp_path / "singlecell").mkdir()
    ad.AnnData(np.ones((3, 2), np.float32)).write_h5ad(tmp_path / "singlecell" / CELLS)

    def her2st(name: str, *, data_dir: Path, with_image: bool = True) -> Any:
        assert data_dir == tmp_path
        table = ad.AnnData(np.ones((2, 2), np.float32), uns={"spatialdata_attrs": {}, "name": name})
        return {"table": table, "image": with_image}

    monkeypatch.setattr(sw.datasets, "her2st", her2st)
    monkeypatch.setattr(recipe, "WITH_IMAGE", ("A1", "C3"))
    monkeypatch.setattr(recipe, "make_wordings", lambda data: [] if data == tmp_path else None)
    for name in ("add_captions", "add_reference_captions"):
        monkeypatch.setattr(captions, name, lambda table, name=name: table.uns.update(captions=name))
    return tmp_path


def test_sections_with_an_image_have_no_captions_and_the_others_no_image(folder: Path) -> None:
    data = load(folder)
    assert list(data.images) == ["A1", "C3"]
    assert all(section["image"] and "captions" not in section["table"].uns for section in data.images.values())
    assert {name: table.uns["name"] for name, table in data.texts.items()} == {"A2": "A2", "D6": "D6"}
    assert all(table.uns["captions"] == "add_captions" for table in data.texts.values())
    assert not any("spatialdata_attrs" in table.uns for table in data.texts.values())
    assert data.cells.shape == (3, 2)
    assert data.cells.uns["captions"] == "add_reference_captions"
    assert data.cells.obs["patient"].tolist() == ["CID4465"] * 3
    assert data.patients == ["A", "C"]
    assert list(load(folder, smoke=True).texts) == ["A2"]


@pytest.mark.parametrize("gone", ["her2st", "singlecell"])
def test_a_folder_that_lacks_a_part_is_refused(folder: Path, gone: str) -> None:
    (folder / gone).rename(folder / "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"must hold her2st/ and singlecell/{CELLS}"):
        load(folder)


def test_a_patient_is_left_out_with_images_and_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[Any], dict[str, Any]]] = []
    monkeypatch.setattr(sw.tl, "train", lambda data, **options: calls.append((data, options)))
    images: Any = {"A1": "image A1", "C3": "image C3"}
    data = TrainingData(images, {"A2": "text A2", "D6": "text D6"}, "cells")  # type: ignore[dict-item, arg-type]
    plan = TrainingRecipe(gene_encoder="pca")
    data.fit(plan, 3)
    data.fit(plan, 3, without="A")
    assert [objects for objects, _ in calls] == [
        ["image A1", "image C3", "text A2", "text D6", "cells"],
        ["image C3", "text D6", "cells"],
    ]
    options = SimpleNamespace(**calls[1][1])
    assert options.random_state == 3
    assert options.preset.schedule == plan.schedule
    assert (options.image.tile_um, options.image.tile_px) == (plan.tile_um, plan.tile_px)
    assert (options.gene.encoder, options.gene.batch_key) == ("pca", "patient")
    assert options.text.key == plan.text_key
