from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import recorded, recorded_as
from spatialwhisperer.tl._annotation.labels import class_embeddings
from spatialwhisperer.tl._annotation.record import AnnotationRecord

# ------------------------------------------------------------------------------------------------- what is written


def test_exactly_the_documented_keys_are_written(section: Any, model: Any, labels: dict[str, str], keys: Any) -> None:
    table = section["table"]
    before, tables = keys.of(table), set(section.tables)
    assert sw.tl.zero_shot_annotate(section, labels, model=model, unknown="label") is None
    assert keys.added(before, table) == {
        "obs": {"sw_label", "sw_label_confidence", "sw_label_margin", "sw_label_reason"},
        "obsm": {"sw_label_scores", "X_sw_image"},
        "uns": {"sw_label", "sw_label_colors"},
        "recorded": {"sw_label", "X_sw_image"},
    }
    assert set(section.tables) == tables
    label = table.obs["sw_label"]
    assert label.cat.categories.tolist() == [name for name in labels if (label == name).any()]
    assert label.notna().all()
    scores = table.obsm["sw_label_scores"]
    assert scores.dtype == np.float32
    assert scores.shape == (120, 5)
    assert table.uns["sw_label"]["classes"].tolist() == list(labels)
    assert (label.to_numpy() == np.array(list(labels))[scores.argmax(1)]).all()
    confidence = table.obs["sw_label_confidence"]
    assert confidence.dtype == np.float32
    logits = scores * model.scale
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(confidence, probability.max(1), atol=1e-5)
    second, first = np.sort(probability, axis=1)[:, -2:].T
    assert np.allclose(table.obs["sw_label_margin"], first - second, atol=1e-5)
    z = table.obsm["X_sw_image"]
    assert z.dtype == np.float32
    assert np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    assert np.allclose(scores, z @ class_embeddings(model, [[p] for p in labels.values()]).T, atol=1e-6)
    record: Any = recorded(table, "sw_label")
    assert record["classes"] == list(labels)
    assert record["prompts"] == [[p] for p in labels.values()]
    assert record["model"]["encoders"] == {"gene": "pca", "image": "stain_texture", "text": "minilm"}
    typed: Any = recorded_as(table, "sw_label", AnnotationRecord)
    assert typed.scores == "cosine"


def test_nothing_is_written_where_scores_are_returned(
    section: Any, model: Any, labels: dict[str, str], keys: Any
) -> None:
    table = section["table"]
    del table.obsm["X_stain_texture"]
    before = keys.of(table)
    scores = sw.tl.zero_shot_annotate(section, labels, model=model, inplace=False)
    assert isinstance(scores, pd.DataFrame)
    assert scores.columns.tolist() == list(labels)
    assert scores.index.equals(table.obs_names)
    assert keys.added(before, table) == {}
    sw.tl.zero_shot_annotate(section, labels, model=model)
    assert np.allclose(table.obsm["sw_label_scores"], scores, atol=1e-5)


def test_labels_of_the_model_are_the_default(section: Any, model: Any) -> None:
    sw.tl.zero_shot_annotate(section, model=model)
    assert section["table"].uns["sw_label"]["classes"].tolist() == model.labels


def test_keys_are_named_after_key_added(section: Any, model: Any, keys: Any) -> None:
    before = keys.of(section["table"])
    sw.tl.zero_shot_annotate(
        section, ["tumour", "B/plasma cell", "fat"], model=model, key_added="mine", modality="gene"
    )
    assert keys.added(before, section["table"]) == {
        "obs": {"mine", "mine_confidence", "mine_margin", "mine_reason"},
        "obsm": {"mine_scores", "X_sw_gene"},
        "uns": {"mine", "mine_colors"},
        "recorded": {"mine", "X_sw_gene"},
    }
    assert section["table"].uns["mine"]["classes"].tolist() == ["tumour", "B/plasma cell", "fat"]


def test_cell_types_of_a_new_patient_are_distinguished(section: Any, model: Any, labels: dict[str, str]) -> None:
    """On simulated tissue, from the image and from the counts."""
    for modality, least in (("image", 0.8), ("gene", 0.9)):
        sw.tl.zero_shot_annotate(section, labels, model=model, modality=modality)
        result = sw.tl.evaluate_annotation(section, "cell_type", min_rows=5)
        assert result["auroc"]["macro"] > least


def test_a_folder_or_a_stored_embedding_gives_the_same(section: Any, model: Any, labels: dict[str, str]) -> None:
    by_model: Any = sw.tl.zero_shot_annotate(section, labels, model=model, inplace=False)
    by_folder: Any = sw.tl.zero_shot_annotate(section, labels, model=model.folder, inplace=False)
    pd.testing.assert_frame_equal(by_model, by_folder)
    sw.tl.embed(section, model=model, key_added="X_mine")
    stored: Any = sw.tl.zero_shot_annotate(
        section, labels, model=str(model.folder), embedding_key="X_mine", inplace=False
    )
    pd.testing.assert_frame_equal(by_model, stored)


# ------------------------------------------------------------------------------------------------- descriptions


def test_a_template_is_filled_with_every_label(section: Any, model: Any) -> None:
    template = "a tissue sample containing {}"
    by_template: Any = sw.tl.zero_shot_annotate(
        section, ["fat", "tumour"], model=model, templates=template, inplace=False
    )
    by_hand: Any = sw.tl.zero_shot_annotate(
        section, {"fat": template.format("fat"), "tumour": template.format("tumour")}, model=model, inplace=False
    )
    pd.testing.assert_frame_equal(by_template, by_hand)


# ------------------------------------------------------------------------------------------------- scores


def test_rows_below_the_confidence_abstain(section: Any, model: Any, labels: dict[str, str]) -> None:
    table = section["table"]
    sw.tl.zero_shot_annotate(section, labels, model=model)
    cut = float(np.median(table.obs["sw_label_confidence"]))
    sw.tl.zero_shot_annotate(section, labels, model=model, min_confidence=cut)
    unsure = (table.obs["sw_label_confidence"] < cut).to_numpy()
    assert 0 < unsure.sum() < 120
    assert np.array_equal(table.obs["sw_label"].isna(), unsure)
    assert np.isfinite(table.obsm["sw_label_scores"]).all()
    assert table.uns["sw_label"]["classes"].tolist() == list(labels)


def test_categories_are_the_labels_that_rows_got(
    section: Any, model: Any, labels: dict[str, str], tmp_path: Any
) -> None:
    import anndata as ad

    table = section["table"]
    for cut, expected in ((0.0, ["adipocyte", "fibroblast"]), (1.0, [])):
        table.obsm["X_mine"] = class_embeddings(model, [[labels["adipocyte"]], [labels["fibroblast"]]])[
            np.arange(120) % 2
        ]
        sw.tl.zero_shot_annotate(section, labels, model=model, embedding_key="X_mine", min_confidence=cut)
        categories = table.obs["sw_label"].cat.categories.tolist()
        assert categories == sorted(expected, key=list(labels).index)
        assert table.uns["sw_label"]["classes"].tolist() == list(labels)
        assert table.obsm["sw_label_scores"].shape == (120, 5)
        # functions that read the annotation look names up among all labels
        assert sw.tl.evaluate_annotation(section, "cell_type").loc[list(labels), "n_present"].sum() == 120
        assert sw.tl.evaluate_calibration(section, "cell_type").attrs["n"] == 120
        assert sw.tl.top_labels(section, 5)["label_5"].notna().all()
        assert len(sw.pl.annotation(section, with_image=False, confidence=True)) == 1
        table.write_h5ad(tmp_path / "t.h5ad")
        assert ad.read_h5ad(tmp_path / "t.h5ad").obs["sw_label"].cat.categories.tolist() == categories


def test_colours_stay_with_their_categories(section: Any, model: Any, labels: dict[str, str]) -> None:
    table = section["table"]
    sw.tl.zero_shot_annotate(section, labels, model=model)
    n = len(table.obs["sw_label"].cat.categories)
    table.uns["sw_label_colors"] = ["#123456"] * n
    sw.tl.zero_shot_annotate(section, labels, model=model)
    assert table.uns["sw_label_colors"] == ["#123456"] * n
    sw.tl.zero_shot_annotate(section, {"x": "fat tissue", "y": "stroma"}, model=model)
    assert len(table.uns["sw_label_colors"]) == len(table.obs["sw_label"].cat.categories)
    assert "#123456" not in table.uns["sw_label_colors"]
    # the colour of a label follows from its place among all labels, also where some have no rows
    sw.tl.zero_shot_annotate(section, labels, model=model)
    all_of_them = dict(zip(table.obs["sw_label"].cat.categories, table.uns["sw_label_colors"], strict=True))
    table.obsm["X_mine"] = class_embeddings(model, [[p] for p in labels.values()])[2 + np.arange(120) % 2]
    sw.tl.zero_shot_annotate(section, labels, model=model, embedding_key="X_mine")
    two = dict(zip(table.obs["sw_label"].cat.categories, table.uns["sw_label_colors"], strict=True))
    assert len(two) == 2
    assert two.items() <= all_of_them.items()


def test_rows_without_a_tile_get_no_label(adata: Any, model: Any, labels: dict[str, str]) -> None:
    off = np.arange(120) % 20 == 3
    adata.obsm["spatial"][off] += 1e5
    del adata.obsm["X_stain_texture"]
    sw.pp.tiles(adata, tile_um=80, tile_px=64, off_slide="nan")
    sw.tl.zero_shot_annotate(adata, labels, model=model, normalize="centre")
    assert np.array_equal(adata.obs["sw_label"].isna(), off)
    for values in (adata.obs["sw_label_confidence"], adata.obsm["sw_label_scores"], adata.obsm["X_sw_image"]):
        assert np.array_equal(np.isnan(np.asarray(values)).reshape(120, -1).all(axis=1), off)


def test_features_of_other_tiles_are_computed_again(
    section: Any, model: Any, labels: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    """What lies in the key of the encoder is used only where it was made as the model was trained."""
    expected: Any = sw.tl.zero_shot_annotate(section, labels, model=model, inplace=False)
    sw.pp.embed_images(section, tile_um=160, tile_px=64)
    capfd.readouterr()
    got: Any = sw.tl.zero_shot_annotate(section, labels, model=model, inplace=False)
    assert (
        "holds features of tiles of 160 µm in 64 px, and tiles of 80 µm in 64 px are asked for"
        in capfd.readouterr().err
    )
    pd.testing.assert_frame_equal(got, expected, atol=1e-4)


# ------------------------------------------------------------------------------------------------- containers


def test_anndata_and_spatialdata_agree(section: Any, adata: Any, model: Any, labels: dict[str, str], keys: Any) -> None:
    del adata.obsm["X_stain_texture"]
    before = keys.of(adata)
    sw.tl.zero_shot_annotate(adata, labels, model=model)
    assert "X_stain_texture" in keys.added(before, adata)["obsm"]
    sw.tl.zero_shot_annotate(section, labels, model=model)
    # a pyramid is read at the level that fits the tile, a plain image at its full resolution
    a, b = adata.obsm["sw_label_scores"], section["table"].obsm["sw_label_scores"]
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99


def test_counts_alone_are_enough(simulated: Any, model: Any, labels: dict[str, str]) -> None:
    cells = simulated.reference.copy()
    sw.tl.zero_shot_annotate(cells, labels, model=model)
    assert "X_sw_gene" in cells.obsm
    assert (cells.obs["sw_label"].astype(str) == cells.obs["cell_type"].astype(str)).mean() > 0.9


def two_libraries(adata: Any) -> Any:
    import anndata as ad

    other = adata[::-1].copy()
    other.obs_names = ["other_" + name for name in other.obs_names]
    both = ad.concat({"A": adata, "B": other}, label="slide", uns_merge=None)[np.random.default_rng(0).permutation(240)]
    both = both.copy()
    both.uns["spatial"] = {"A": adata.uns["spatial"]["P3"], "B": adata.uns["spatial"]["P3"]}
    return both


@pytest.mark.slow
def test_several_sections_are_independent(adata: Any, model: Any, labels: dict[str, str]) -> None:
    """Each section is standardised by itself, whatever the order of the rows; a column of any name may tell them apart."""
    both = two_libraries(adata)
    del adata.obsm["X_stain_texture"]
    one: Any = sw.tl.zero_shot_annotate(adata, labels, model=model, normalize="centre", inplace=False)
    both.obs = both.obs.drop(columns=["section"])
    del both.obsm["X_stain_texture"]
    sw.tl.zero_shot_annotate(both, labels, model=model, normalize="centre", library_key="slide")
    rows = both.obs["slide"] == "A"
    got = pd.DataFrame(both.obsm["sw_label_scores"][rows], index=both.obs_names[rows], columns=list(labels))
    pd.testing.assert_frame_equal(got.loc[one.index], one, atol=1e-4)
    with pytest.raises(ValueError, match="library_key"):
        sw.tl.zero_shot_annotate(both, labels, model=model)


@pytest.mark.slow
def test_an_image_alone_is_enough(simulated: Any, model: Any, labels: dict[str, str]) -> None:
    import spatialdata as sd

    slide = sd.SpatialData(images=dict(simulated.sections["P3"].images))
    sw.pp.tiles(slide, at="grid", tile_um=80)
    sw.tl.zero_shot_annotate(slide, labels, model=model)
    table = slide["sw_tiles"]
    assert table.n_obs > 100
    assert table.obs["sw_label"].notna().all()
    assert table.obsm["X_sw_image"].shape == (table.n_obs, 64)
    # without tiles they are laid at the size that the model reads
    bare = sd.SpatialData(images=dict(slide.images))
    sw.tl.zero_shot_annotate(bare, labels, model=model)
    assert bare["sw_tiles"].obs["sw_label"].tolist() == table.obs["sw_label"].tolist()


def test_the_batch_size_does_not_matter(section: Any, model: Any) -> None:
    z: Any = sw.tl.embed(section, model=model, inplace=False)
    in_sevens: Any = sw.tl.embed(section, model=model, batch_size=7, inplace=False)
    assert np.allclose(in_sevens, z, atol=1e-6)
    one = section["table"].obsm["X_stain_texture"]
    assert np.allclose(model.project("image", one, batch_size=11), z, atol=1e-6)


def test_labels_of_few_rows_are_removed(section: Any, model: Any, labels: dict[str, str]) -> None:
    table = section["table"]
    sw.tl.zero_shot_annotate(section, labels, model=model, unknown="label")
    counts = table.obs["sw_label"].value_counts()
    least = int(counts.min()) + 1
    rare = table.obs["sw_label"].isin(counts.index[counts < least]).to_numpy()
    sw.tl.zero_shot_annotate(section, labels, model=model, unknown="label", min_rows=least)
    assert table.obs["sw_label"].isna().to_numpy().tolist() == rare.tolist()
    assert (table.obs["sw_label_reason"] == "label below min_rows").to_numpy().tolist() == rare.tolist()
    assert table.obs["sw_label"].value_counts().min() >= least
    record: Any = recorded_as(table, "sw_label", AnnotationRecord)
    assert (record.min_rows, dict(record.without_label)) == (least, {"label below min_rows": int(rare.sum())})
