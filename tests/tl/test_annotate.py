from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import recorded
from spatialwhisperer.tl._annotation.labels import check_labels, class_embeddings, fill_templates
from spatialwhisperer.tl._annotation.scoring import Correction, score_rows


def slots(table: Any) -> dict[str, set[str]]:
    return {
        "obs": set(table.obs),
        "obsm": set(table.obsm),
        "uns": set(table.uns),
        "recorded": set(table.uns.get("spatialwhisperer", {})),
        "var": set(table.var),
        "layers": set(table.layers),
    }


def added(before: dict[str, set[str]], table: Any) -> dict[str, set[str]]:
    now = slots(table)
    return {k: now[k] - before[k] for k in now if now[k] != before[k]}


# ------------------------------------------------------------------------------------------------- what is written


def test_exactly_the_documented_slots(section: Any, model: Any, labels: dict[str, str]) -> None:
    table = section["table"]
    before, tables = slots(table), set(section.tables)
    assert sw.tl.zero_shot_annotate(section, labels, model=model) is None
    assert added(before, table) == {
        "obs": {"sw_label", "sw_label_confidence", "sw_label_margin"},
        "obsm": {"sw_label_scores", "X_sw_image"},
        "uns": {"sw_label"},
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
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(confidence, shares.max(1), atol=1e-5)
    z = table.obsm["X_sw_image"]
    assert z.dtype == np.float32
    assert np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    assert np.allclose(scores, z @ class_embeddings(model, [[p] for p in labels.values()]).T, atol=1e-6)
    told = recorded(table, "sw_label")
    assert told["classes"] == list(labels)
    assert told["prompts"] == [[p] for p in labels.values()]
    assert told["model"]["encoders"] == {"gene": "pca", "image": "stain_texture", "text": "minilm"}


def test_nothing_is_written_out_of_place(section: Any, model: Any, labels: dict[str, str]) -> None:
    table = section["table"]
    del table.obsm["X_stain_texture"]
    before = slots(table)
    scores = sw.tl.zero_shot_annotate(section, labels, model=model, inplace=False)
    assert isinstance(scores, pd.DataFrame)
    assert scores.columns.tolist() == list(labels)
    assert scores.index.equals(table.obs_names)
    assert added(before, table) == {}
    sw.tl.zero_shot_annotate(section, labels, model=model)
    assert np.allclose(table.obsm["sw_label_scores"], scores, atol=1e-5)


def test_labels_of_the_model_by_default(section: Any, model: Any) -> None:
    sw.tl.zero_shot_annotate(section, model=model)
    assert section["table"].uns["sw_label"]["classes"].tolist() == model.labels


def test_other_names_for_the_slots(section: Any, model: Any) -> None:
    before = slots(section["table"])
    sw.tl.zero_shot_annotate(
        section, ["tumour", "B/plasma cell", "fat"], model=model, key_added="mine", modality="gene"
    )
    assert added(before, section["table"]) == {
        "obs": {"mine", "mine_confidence", "mine_margin"},
        "obsm": {"mine_scores", "X_sw_gene"},
        "uns": {"mine"},
        "recorded": {"mine", "X_sw_gene"},
    }
    assert section["table"].uns["mine"]["classes"].tolist() == ["tumour", "B/plasma cell", "fat"]


def test_it_tells_types_apart(section: Any, model: Any, labels: dict[str, str]) -> None:
    """On simulated tissue of a new patient, from the image and from the counts."""
    for modality, least in (("image", 0.8), ("gene", 0.9)):
        sw.tl.zero_shot_annotate(section, labels, model=model, modality=modality)
        result = sw.tl.evaluate_annotation(section, "cell_type", min_rows=5)
        assert result.loc["macro", "auroc"] > least


def test_a_folder_or_a_stored_embedding(section: Any, model: Any, labels: dict[str, str]) -> None:
    by_model = sw.tl.zero_shot_annotate(section, labels, model=model, inplace=False)
    by_folder = sw.tl.zero_shot_annotate(section, labels, model=model.folder, inplace=False)
    pd.testing.assert_frame_equal(by_model, by_folder)
    sw.tl.embed(section, model=model, key_added="X_mine")
    stored = sw.tl.zero_shot_annotate(section, labels, model=str(model.folder), embedding_key="X_mine", inplace=False)
    pd.testing.assert_frame_equal(by_model, stored)


# ------------------------------------------------------------------------------------------------- descriptions


def test_several_descriptions_are_averaged_and_renormalised(model: Any) -> None:
    both = class_embeddings(model, [["fat tissue", "adipocytes"], ["stroma"]])
    single = class_embeddings(model, [["fat tissue"], ["adipocytes"], ["stroma"]])
    mean = single[:2].mean(0)
    assert np.allclose(both[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert np.allclose(both[1], single[2], atol=1e-6)
    assert np.allclose(np.linalg.norm(both, axis=1), 1, atol=1e-6)


def test_templates(section: Any, model: Any) -> None:
    assert fill_templates([["fat", "adipocytes"], ["gland"]], ["{}", "tissue with {}, {}"]) == [
        ["fat", "tissue with fat, fat", "adipocytes", "tissue with adipocytes, adipocytes"],
        ["gland", "tissue with gland, gland"],
    ]
    template = "a tissue sample containing {}"
    by_template = sw.tl.zero_shot_annotate(section, ["fat", "tumour"], model=model, templates=template, inplace=False)
    by_hand = sw.tl.zero_shot_annotate(
        section, {"fat": template.format("fat"), "tumour": template.format("tumour")}, model=model, inplace=False
    )
    pd.testing.assert_frame_equal(by_template, by_hand)


def test_labels_in_any_form(model: Any) -> None:
    assert check_labels(("a", "b"), model) == (["a", "b"], [["a"], ["b"]])
    assert check_labels({"a": "x", "b": ("y", "z")}, model) == (["a", "b"], [["x"], ["y", "z"]])
    assert check_labels(pd.Index(["a", "b"]), model)[0] == ["a", "b"]


# ------------------------------------------------------------------------------------------------- scores


@pytest.fixture
def cosines() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    z, text = rng.normal(size=(9, 4)), rng.normal(size=(3, 4))
    z[4] = np.nan
    unit = [(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (z, text)]
    return unit[0], unit[1]


def how(normalize: str, temperature: float = 0.1, mean: Any = None) -> Correction:
    return Correction(normalize, None, mean, temperature, False)


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


def test_normalisation_by_hand(cosines: tuple[np.ndarray, np.ndarray]) -> None:
    z, text = cosines
    sections = np.array(["b"] * 5 + ["a"] * 4)
    raw = z.astype(np.float64) @ text.T.astype(np.float64)
    ok = np.arange(9) != 4
    none, share = score_rows(z, text, sections=sections, how=how("none"))
    assert np.allclose(none[ok], raw[ok], atol=1e-6)
    assert np.isnan(none[4]).all()
    assert np.isnan(share[4]).all()
    softmaxed, same = score_rows(z, text, sections=sections, how=how("softmax"))
    assert np.allclose(softmaxed[ok], softmax(10 * raw)[ok], atol=1e-5)
    assert np.array_equal(softmaxed, same, equal_nan=True)
    assert np.array_equal(share, same, equal_nan=True)
    centred, centred_share = score_rows(z, text, sections=sections, how=how("centre"))
    for rows in (np.arange(4), np.arange(5, 9)):
        expected = raw[rows] - raw[rows].mean(0)
        assert np.allclose(centred[rows], expected, atol=1e-6)
        assert np.allclose(centred_share[rows], softmax(10 * expected), atol=1e-5)
    mean = np.array([0.2, 0, -0.1, 0.4])
    against, _ = score_rows(z, text, sections=sections, how=how("centre", mean=mean))
    assert np.allclose(against[ok], (raw - text @ mean)[ok], atol=1e-6)
    assert all(x.dtype == np.float32 for x in (none, softmaxed, centred, share, against))


def test_a_section_without_any_tile_is_no_problem(cosines: tuple[np.ndarray, np.ndarray]) -> None:
    z, text = cosines
    scores, _ = score_rows(z * np.nan, text, sections=np.array(["a"] * 9), how=how("centre"))
    assert np.isnan(scores).all()


def test_abstaining(section: Any, model: Any, labels: dict[str, str]) -> None:
    table = section["table"]
    sw.tl.zero_shot_annotate(section, labels, model=model)
    cut = float(np.median(table.obs["sw_label_confidence"]))
    sw.tl.zero_shot_annotate(section, labels, model=model, min_confidence=cut)
    unsure = (table.obs["sw_label_confidence"] < cut).to_numpy()
    assert 0 < unsure.sum() < 120
    assert np.array_equal(table.obs["sw_label"].isna(), unsure)
    assert np.isfinite(table.obsm["sw_label_scores"]).all()
    assert table.uns["sw_label"]["classes"].tolist() == list(labels)


def test_only_labels_that_a_row_got_are_categories(
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
        # the functions that come next look names up among all labels
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
    assert "sw_label_colors" not in table.uns
    # a label has its colour by its place among all labels, also where others were not given
    sw.tl.zero_shot_annotate(section, labels, model=model)
    sw.pl.annotation(section, with_image=False)
    all_of_them = dict(zip(table.obs["sw_label"].cat.categories, table.uns["sw_label_colors"], strict=True))
    table.obsm["X_mine"] = class_embeddings(model, [[p] for p in labels.values()])[2 + np.arange(120) % 2]
    sw.tl.zero_shot_annotate(section, labels, model=model, embedding_key="X_mine")
    sw.pl.annotation(section, with_image=False)
    two = dict(zip(table.obs["sw_label"].cat.categories, table.uns["sw_label_colors"], strict=True))
    assert len(two) == 2
    assert two.items() <= all_of_them.items()


def test_rows_without_a_tile_get_no_label(section: Any, model: Any, labels: dict[str, str]) -> None:
    table = section["table"]
    sw.pp.embed_images(section, tile_um=400, tile_px=64, border="nan")
    cut = np.isnan(table.obsm["X_stain_texture"]).any(axis=1)
    assert 0 < cut.sum() < 120
    with pytest.warns(sw._utils.SpatialWhispererWarning, match="trained on 80"):
        sw.tl.zero_shot_annotate(section, labels, model=model, normalize="centre")
    assert np.array_equal(table.obs["sw_label"].isna(), cut)
    for values in (table.obs["sw_label_confidence"], table.obsm["sw_label_scores"], table.obsm["X_sw_image"]):
        assert np.array_equal(np.isnan(np.asarray(values)).reshape(120, -1).all(axis=1), cut)


# ------------------------------------------------------------------------------------------------- containers


def test_anndata_and_spatialdata_agree(section: Any, adata: Any, model: Any, labels: dict[str, str]) -> None:
    del adata.obsm["X_stain_texture"]
    before = slots(adata)
    sw.tl.zero_shot_annotate(adata, labels, model=model)
    assert "X_stain_texture" in added(before, adata)["obsm"]
    sw.tl.zero_shot_annotate(section, labels, model=model)
    # a pyramid is read at the level that fits the tile, a plain image at its full resolution
    a, b = adata.obsm["sw_label_scores"], section["table"].obsm["sw_label_scores"]
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99


def test_an_anndata_of_counts_alone(simulated: Any, model: Any, labels: dict[str, str]) -> None:
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


def test_several_sections_are_independent(adata: Any, model: Any, labels: dict[str, str]) -> None:
    """Each section is standardised by itself, whatever the order of the rows; a column of any name may tell them apart."""
    both = two_libraries(adata)
    del adata.obsm["X_stain_texture"]
    one = sw.tl.zero_shot_annotate(adata, labels, model=model, normalize="centre", inplace=False)
    both.obs = both.obs.drop(columns=["section"])
    del both.obsm["X_stain_texture"]
    sw.tl.zero_shot_annotate(both, labels, model=model, normalize="centre", library_key="slide")
    rows = both.obs["slide"] == "A"
    got = pd.DataFrame(both.obsm["sw_label_scores"][rows], index=both.obs_names[rows], columns=list(labels))
    pd.testing.assert_frame_equal(got.loc[one.index], one, atol=1e-4)
    with pytest.raises(ValueError, match="library_key"):
        sw.tl.zero_shot_annotate(both, labels, model=model)


def test_a_slide_without_expression(simulated: Any, model: Any, labels: dict[str, str]) -> None:
    import spatialdata as sd

    slide = sd.SpatialData(images=dict(simulated.sections["P3"].images))
    sw.pp.tiles(slide, at="grid", tile_um=80)
    sw.tl.zero_shot_annotate(slide, labels, model=model)
    table = slide["sw_tiles"]
    assert table.n_obs > 100
    assert table.obs["sw_label"].notna().all()
    assert table.obsm["X_sw_image"].shape == (table.n_obs, 64)
    with pytest.raises(KeyError, match="holds no table"):
        sw.tl.zero_shot_annotate(sd.SpatialData(images=dict(slide.images)), labels, model=model)


def test_batches_do_not_matter(section: Any, model: Any) -> None:
    z = sw.tl.embed(section, model=model, inplace=False)
    assert np.allclose(sw.tl.embed(section, model=model, batch_size=7, inplace=False), z, atol=1e-6)
    one = section["table"].obsm["X_stain_texture"]
    assert np.allclose(model.project("image", one, batch_size=11), z, atol=1e-6)


@pytest.mark.slow
def test_annotation_of_squidpy_follows(adata: Any, model: Any, labels: dict[str, str]) -> None:
    """The slots are read by squidpy and scanpy as they are."""
    import scanpy as sc
    import squidpy as sq

    sw.tl.zero_shot_annotate(adata, labels, model=model)
    sq.gr.spatial_neighbors(adata)
    sq.gr.nhood_enrichment(adata, cluster_key="sw_label", n_perms=10, seed=0, show_progress_bar=False)
    assert adata.uns["sw_label_nhood_enrichment"]["zscore"].shape[0] >= 2
    sc.pp.neighbors(adata, use_rep="X_sw_image", n_neighbors=5)
    assert adata.obsp["distances"].shape == (120, 120)
