from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer.protocols.her2st.folds import FOLDS, Fold, Materials, with_rows


def test_no_section_is_measured_that_trains() -> None:
    for fold in FOLDS:
        assert not set(fold.train) & set(fold.test)
        if fold.split == "patient":
            assert not {name[0] for name in fold.train} & {name[0] for name in fold.test}


def test_a_part_of_a_section_keeps_its_image(section) -> None:
    part = with_rows(section, np.array([3, 5]))
    assert list(part["table"].obs_names) == list(section["table"].obs_names[[3, 5]])
    assert set(part.images) == set(section.images)


def test_weights_that_are_missing_are_named(tmp_path, monkeypatch) -> None:
    import anndata as ad

    materials = Materials(tmp_path, tmp_path / "cache", tables={"C2": ad.AnnData(np.zeros((2, 1), np.float32))})
    monkeypatch.setattr(Materials, "section", lambda *_: None)
    with pytest.raises(FileNotFoundError, match=r"mobilenet_v2_imagenet_u8\.npz.*--features stain_texture"):
        materials.features("C2", "mobilenet_v2", 1.0, scales=False)


def test_features_that_are_there_are_not_computed_again(tmp_path) -> None:
    import anndata as ad

    table = ad.AnnData(np.zeros((2, 1), np.float32))
    table.obsm["X_stain_texture_0.69_scales"] = np.zeros((2, 3))
    materials = Materials(tmp_path, tmp_path / "cache", tables={"C2": table})
    assert materials.features("C2", "stain_texture", 0.6875, scales=True) == "X_stain_texture_0.69_scales"


def test_the_likelihood_of_a_preset_reaches_its_gene_encoder(tmp_path) -> None:
    import anndata as ad
    import pandas as pd

    rng = np.random.default_rng(0)
    tables = {}
    for name in ("A1", "B1", "D1", "E1"):
        obs = pd.DataFrame({"patient": name[0], "section": name}, index=[f"{name}_{i}" for i in range(40)])
        x = rng.poisson(2.0, (40, 30)).astype(np.float32)
        tables[name] = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(30)]))
    others = {name: tables[name] for name in ("B1", "D1")}
    materials = Materials(tmp_path, tmp_path, {"A1": tables["A1"]}, others, smoke=True)
    fold = Fold("patient", "E", ("A1",), ("E1",), 1.0)
    zinb, nb = (materials.gene_encoder("scvi", fold, name).tensors() for name in ("zinb", "nb"))
    assert any(not np.array_equal(zinb[key], nb[key]) for key in nb)
    # what a smoke run keeps is not found by another run, nor what other sections have trained
    kept = [p.name.rpartition("-")[0] for p in (tmp_path / "smoke" / "encoders").iterdir()]
    assert sorted(kept) == ["scvi-nb-patient-E", "scvi-zinb-patient-E"]
    more = Fold("patient", "E", ("A1", "B1"), ("E1",), 1.0)
    materials.tables["B1"] = tables["B1"]
    materials.gene_encoder("scvi", more, "nb")
    assert len(list((tmp_path / "smoke" / "encoders").iterdir())) == 3
