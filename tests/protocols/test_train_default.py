from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import spatialwhisperer as sw
from spatialwhisperer.protocols import train_default
from spatialwhisperer.protocols.default_model.labels import LABELS, TISSUE

if TYPE_CHECKING:
    from pathlib import Path


def test_missing_texts_are_named_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"text/cell_ontology_2022-09-15\.tsv\.gz is not there"):
        train_default.main(["--data", str(tmp_path), "--out", str(tmp_path / "mini")])
    assert not (tmp_path / "mini").exists()


def test_a_model_that_is_too_large_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_default, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="holds at most 0 MB"):
        train_default.write(sw.models.Whisperer.load("her2st-mini"), tmp_path / "mini")
    assert not (tmp_path / "mini").exists()


@pytest.mark.slow
def test_the_script_trains_such_a_model(data_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mini"
    arguments = ["--data", str(data_folder), "--out", str(out), "--gene-encoder", "pca", "--smoke"]
    assert train_default.main(arguments) == 0
    model = sw.models.Whisperer.load(out)
    assert model.labels == list(LABELS)
    card, annotation = model.config.card, model.config.annotation
    assert card is not None
    assert set(card.held_out_macro_auroc) == {"A1", "C3"}
    assert card.command == "python -m spatialwhisperer.protocols.train_default --data FOLDER"
    assert annotation is not None
    assert annotation.ece is not None
    assert 0 <= annotation.ece <= 1
    assert dict(annotation.regions) == TISSUE
    assert annotation.min_confidence >= 0.5
    assert annotation.modality == "image"
    assert model.vocabulary is not None
    assert model.vocabulary.ontology.is_a("CL:0002327", "CL:0000066")
    section = sw.datasets.her2st("C4", data_dir=data_folder)
    sw.tl.zero_shot_annotate(section, model=model)
    table = section["table"]
    assert table.obsm["sw_label_probability"].shape == (table.n_obs, len(LABELS))
    given = table.obs["sw_label_confidence"][table.obs["sw_label"].notna()]
    assert (given >= annotation.min_confidence).all()
    assert set(table.obs["sw_label"].cat.categories) <= {*LABELS, *TISSUE}
