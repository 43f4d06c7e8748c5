"""Folders of tables with a table of metadata: HEST-1k and others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer.datasets.folders.metadata import patients_of
from spatialwhisperer.pp.corpus.patches import patch_features
from spatialwhisperer.training.corpus.shards import Corpus
from tests.corpora import HashedText

if TYPE_CHECKING:
    from pathlib import Path

GENES = [f"GENE{i}" for i in range(80)]


def counts(seed: int, n: int = 60) -> Any:
    rng = np.random.default_rng(seed)
    rates = np.exp(rng.normal(0.5, 1.2, len(GENES)) + rng.normal(0, 0.3, (n, len(GENES))))
    out = ad.AnnData(rng.poisson(rates).astype(np.float32), var=pd.DataFrame(index=GENES))
    out.obs_names = [f"AAAC{i:04d}-1" for i in range(n)]
    out.obsm["spatial"] = rng.uniform(0, 4000, (n, 2))
    out.uns["spatial"] = {"ST": {"images": {"downscaled_fullres": np.zeros((20, 20, 3), np.uint8)}, "scalefactors": {}}}
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sections, of which SIM3 is a copy of SIM0 under another patient; SIM2 has no patches. Read only."""
    import h5py

    root = tmp_path_factory.mktemp("hest")
    for part in ("st", "patches"):
        (root / part).mkdir()
    for i in range(4):
        table = counts(i % 3)
        table.write_h5ad(root / "st" / f"SIM{i}.h5ad")
        if i == 2:
            continue
        # not in the order of the table, and one is missing
        order = np.random.default_rng(i).permutation(table.n_obs)[1:]
        tiles = np.random.default_rng(10 + i).integers(0, 255, (table.n_obs, 28, 28, 3), dtype=np.uint8)
        with h5py.File(root / "patches" / f"SIM{i}.h5", "w") as h5:
            h5["img"], h5["barcode"] = tiles[order], np.array([[table.obs_names[j].encode()] for j in order])
    metadata = {
        "id": [f"SIM{i}" for i in range(5)],
        "patient": ["A", "B", None, "C", "D"],
        "dataset_title": "a study",
        "organ": ["Breast", "Breast", "Lung", "Breast", "Breast"],
        "species": "Homo sapiens",
        "pixel_size_um_estimated": [0.5, 0.9, 0.5, 0.5, 0.5],
    }
    pd.DataFrame(metadata).to_csv(root / "HEST_v1_1_0.csv", index=False)
    return root


def test_sections_are_opened_with_patient_and_metadata(folder: Path) -> None:
    found = sw.datasets.hest(folder)
    assert list(found) == ["SIM0", "SIM1", "SIM2", "SIM3"]
    assert dict(found.patients) == {"SIM0": "A", "SIM1": "B", "SIM2": "not stated (a study)", "SIM3": "C"}
    table: Any = found["SIM1"]
    assert np.array_equal(table.X, counts(1).X)
    assert table.obs[["patient", "organ", "section"]].iloc[0].tolist() == ["B", "Breast", "SIM1"]
    assert "sw_patches" in table.uns
    assert "sw_patches" not in found["SIM2"].uns
    assert found.peek("SIM1").isbacked
    assert repr(found).startswith("SectionFolder(4 sections of 4 patients: SIM0")


def test_a_query_chooses_sections(folder: Path) -> None:
    assert list(sw.datasets.hest(folder, query="organ == 'Breast' and pixel_size_um_estimated <= 0.8")) == [
        "SIM0",
        "SIM3",
    ]
    with pytest.raises(ValueError, match="No section fits"):
        sw.datasets.hest(folder, query="organ == 'Kidney'")
    with pytest.raises(ValueError, match="cannot be read .*Columns: patient"):
        sw.datasets.hest(folder, query="no_such_column > 1")
    with pytest.raises(FileNotFoundError, match="holds no section that was asked for"):
        sw.datasets.hest(folder, query="patient == 'D'")


def test_a_patient_of_two_data_sets_is_two_people() -> None:
    metadata = {"patient": ["Patient 1", "Patient 1", "Patient 2", "Patient 2", None], "dataset_title": [*"ABBB", None]}
    found = patients_of(pd.DataFrame(metadata, index=[*"abcde"]))
    assert list(found.values()) == ["Patient 1 (A)", "Patient 1 (B)", "Patient 2", "Patient 2", "not stated"]


def test_patients_of_a_section_and_its_copy_are_one(folder: Path) -> None:
    found = sw.datasets.hest(folder, join_duplicates=True)
    assert found.patients["SIM0"] == found.patients["SIM3"] == "A + C"
    assert [(d.one, d.other) for d in found.duplicates] == [("SIM0", "SIM3")]
    assert found["SIM3"].obs["patient"].iloc[0] == "A + C"


def test_patches_become_the_image_features_of_their_rows(folder: Path, tmp_path: Path) -> None:
    class MeanColour(sw.models.ImageEncoder):
        spec = sw.models.EncoderSpec("mean_colour", "image", 3, licence="MIT")

        def encode(self, inputs: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:  # noqa: ARG002
            return inputs.mean(axis=(2, 3)).astype(np.float32)

    found = sw.datasets.hest(folder, query="organ == 'Breast'")
    genes = sw.pp.fit_gene_encoder(list(found.values()), "pca", n_latent=3, n_top_genes=None)
    source = sw.pp.CorpusSource("hest", found, "CC BY-NC-SA 4.0")
    corpus = Corpus.open(sw.pp.build_corpus(source, tmp_path / "c", image=MeanColour(), gene=genes))
    assert corpus.manifest.features["image"].recipe.tile_um == (112.0,)
    shard = next(s for s in corpus.shards if "SIM1" in s.record.path)
    assert shard.record.rows == 59
    names = [name.rpartition(":")[2] for name in ad.read_zarr(shard.path).obs_names]
    tiles = np.random.default_rng(11).integers(0, 255, (60, 28, 28, 3), dtype=np.uint8)
    at = counts(1).obs_names.get_indexer(pd.Index(names))
    assert np.allclose(shard.block(0, 59).features["image"], tiles[at].mean(axis=(1, 2)), atol=1e-3)


def test_rows_of_one_name_have_the_same_patch(folder: Path) -> None:
    table: Any = sw.datasets.hest(folder)["SIM1"]
    encoder: Any = sw.models.open_encoder("stain_texture", "image")
    alone = patch_features(table, encoder)
    at = np.array([5, 2, 7, 2, 2, 40, 5])
    # the encoder looks at all patches that are read, so that the whole table is read too
    rows = np.r_[np.arange(table.n_obs), at]
    twice = table[rows].copy()
    found = patch_features(twice, encoder)
    np.testing.assert_array_equal(found, alone[rows])


def test_patches_of_other_rows_are_refused(folder: Path) -> None:
    table = sw.datasets.hest(folder)["SIM1"]
    table.obs_names = [f"x{name}" for name in table.obs_names]
    encoder: Any = sw.models.open_encoder("stain_texture", "image")
    with pytest.raises(
        ValueError, match=r"No row has a patch in .*SIM1\.h5: rows are named xAAAC0000-1, .*barcodes AAAC"
    ):
        patch_features(table, encoder)


@pytest.mark.parametrize(
    ("damage", "kind", "text"),
    [
        (lambda f: (f / "HEST_v1_1_0.csv").unlink(), FileNotFoundError, "must hold one table of metadata"),
        (lambda f: counts(5).write_h5ad(f / "st" / "NEW.h5ad"), ValueError, "no row for NEW"),
        (lambda f: (f / "st").rename(f / "other"), FileNotFoundError, "no folder in the layout of HEST-1k"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(folder: Path, tmp_path: Path, damage: Any, kind: Any, text: str) -> None:
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy)
    with pytest.raises(kind, match=text):
        sw.datasets.hest(copy)


def test_a_folder_of_h5ad_files_with_a_table(tmp_path: Path) -> None:
    for i in range(3):
        counts(i).write_h5ad(tmp_path / f"GSM{i}.h5ad")
    rows = pd.DataFrame(
        {"gsm": [f"GSM{i}" for i in range(3)], "donor": ["A", "A", "B"], "tissue": ["skin", "skin", "liver"]}
    )
    rows.to_csv(tmp_path / "samples.tsv.gz", sep="\t", index=False)
    found = sw.datasets.h5ad_folder(tmp_path, id_key="gsm", patient_key="donor", query="tissue == 'skin'")
    assert dict(found.patients) == {"GSM0": "A", "GSM1": "A"}
    assert set(found["GSM1"].obs["tissue"]) == {"skin"}
    source = sw.pp.CorpusSource("geo", found, "CC0", text_key="tissue")
    genes = sw.pp.fit_gene_encoder(list(found.values()), "pca", n_latent=3, n_top_genes=None)
    corpus = Corpus.open(sw.pp.build_corpus(source, tmp_path / "c", gene=genes, text=HashedText()))
    assert corpus.manifest.rows("gene", "text") == 120
    assert corpus.manifest.patients() == ["A"]


def test_a_file_without_a_row_of_metadata_is_refused(tmp_path: Path) -> None:
    for i, name in enumerate(("001", "B")):
        counts(i).write_h5ad(tmp_path / f"{name}.h5ad")
    rows = pd.DataFrame({"id": ["1", "B "], "patient": ["P", "Q"]})
    rows.to_csv(tmp_path / "samples.csv", index=False)
    with pytest.raises(ValueError, match="no row for 001 of"):
        sw.datasets.h5ad_folder(tmp_path)
    rows.assign(id=["001", "B "]).to_csv(tmp_path / "samples.csv", index=False)
    assert dict(sw.datasets.h5ad_folder(tmp_path).patients) == {"001": "P", "B": "Q"}
