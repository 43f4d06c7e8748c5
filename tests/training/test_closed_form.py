from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

import spatialwhisperer as sw
from spatialwhisperer.retrieval.neighbours import section_neighbours
from spatialwhisperer.training.closed_form import (
    CAPTION_PENALTY,
    caption_directions,
    captioned_rows,
    fit_closed_form,
    install_image_link,
)
from spatialwhisperer.training.ridge_link import pair_units, solve_ridge
from spatialwhisperer.training.text.text_map import TEXT_PENALTY, text_map

if TYPE_CHECKING:
    from collections.abc import Callable

    from spatialwhisperer.models.joint_space import JointSpace
    from spatialwhisperer.training.batches import Items

    Space = Callable[..., JointSpace]

TILES = sw.tl.ImageFeatures(tile_um=80, tile_px=64)


# ------------------------------------------------------------------------------------------------- directions and text map


def two_groups(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The caption follows feature 0 within groups; feature 1 tells the groups apart, and so do its rates."""
    group = np.repeat(["a", "b"], 300)
    gene = rng.normal(size=(600, 3))
    gene[:, 1] += np.where(group == "a", -3, 3)
    score = gene[:, 0] + rng.normal(scale=0.3, size=600)
    holds = score > np.where(group == "a", 1.0, -1.0)
    return gene, holds[:, None], group


def test_direction_ignores_what_sets_groups_apart() -> None:
    gene, holds, group = two_groups(np.random.default_rng(0))
    inside = caption_directions(gene, holds, group)[:, 0]
    assert np.abs(inside[1:]).max() < 0.1 * inside[0]
    across = caption_directions(gene, holds, np.repeat("all", 600))[:, 0]
    assert across[1] > 0.3 * across[0]


def test_scores_along_a_direction_have_unit_variance_within_groups() -> None:
    gene, holds, group = two_groups(np.random.default_rng(1))
    scores = gene @ caption_directions(gene, holds, group)[:, 0]
    centred = scores - np.where(group == "a", scores[group == "a"].mean(), scores[group == "b"].mean())
    assert centred.std() == pytest.approx(1.0)


def test_a_caption_of_whole_groups_takes_their_difference() -> None:
    gene, _, group = two_groups(np.random.default_rng(2))
    direction = caption_directions(gene, (group == "b")[:, None], group)[:, 0]
    assert direction[1] > 0.3
    assert np.abs(direction[[0, 2]]).max() < 0.1 * direction[1]


def test_a_caption_without_rows_has_no_direction_and_no_part_in_the_text_map() -> None:
    gene, holds, group = two_groups(np.random.default_rng(3))
    directions = caption_directions(gene, np.hstack([holds, np.zeros_like(holds)]), group)
    assert not directions[:, 1].any()
    text = np.eye(2, 5)
    assert not (text_map(text, directions) @ text[1]).any()


def test_text_map_takes_captions_to_their_directions_and_similar_words_near_them() -> None:
    rng = np.random.default_rng(4)
    text = rng.normal(size=(4, 30))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    directions = rng.normal(size=(6, 4))
    assert np.allclose(text_map(text, directions, penalty=1e-9) @ text.T, directions, atol=1e-6)
    similar = text[2] + 0.05 * rng.normal(size=30)
    mapped = text_map(text, directions) @ similar
    cosines = directions.T @ mapped / np.linalg.norm(directions, axis=0) / np.linalg.norm(mapped)
    assert cosines.argmax() == 2
    assert cosines[2] > 0.9


def test_directions_are_the_ridge_regression_of_sklearn() -> None:
    rng = np.random.default_rng(5)
    x, holds = rng.normal(size=(200, 6)), rng.random((200, 3)) < 0.3
    got = caption_directions(x, holds, np.repeat("all", 200))
    weight = Ridge(alpha=CAPTION_PENALTY).fit(x, holds.astype(float)).coef_.T
    assert got == pytest.approx(weight / (x @ weight).std(axis=0))


def test_the_text_map_is_the_ridge_regression_of_sklearn() -> None:
    rng = np.random.default_rng(6)
    text, directions = rng.normal(size=(9, 4)), rng.normal(size=(6, 9))
    expected = Ridge(alpha=TEXT_PENALTY, fit_intercept=False).fit(text, directions.T).coef_
    assert text_map(text, directions) == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------- on arrays


def test_a_row_with_two_captions_holds_both() -> None:
    from spatialwhisperer.training.batches import Items

    index = {"gene": np.array([2, 0, 0, 1]), "text": np.array([0, 0, 1, -1])}
    inputs = {"gene": np.zeros((3, 2)), "text": np.zeros((2, 2))}
    given = Items(inputs, index, np.array([2, 0, 0, 1]), np.array(["c", "a", "a", "b"]))
    rows, holds, group = captioned_rows(given, "gene")
    assert rows.tolist() == [0, 2]
    assert holds.tolist() == [[True, True], [True, False]]
    assert group.tolist() == ["a", "c"]


@pytest.mark.parametrize(("size", "clamped"), [(0.1, False), (1.0, True)])
def test_the_scale_is_the_length_of_the_captions_and_at_least_one(
    items: Items, space: Space, size: float, clamped: bool
) -> None:
    """Logits are in standard deviations of the scores of training rows. Wide features have short directions."""
    model = space()
    scaled = replace(items, inputs={**items.inputs, "gene": np.float32(size) * items.inputs["gene"]})
    fit_closed_form(model, scaled, bridge="gene")
    z = model.project("text", scaled.inputs["text"], unit=False)
    length = np.sqrt(5) * np.median(np.linalg.norm(z, axis=1))
    assert (length < 1) == clamped
    assert model.scale == pytest.approx(1.0 if clamped else length, rel=1e-5)


def test_the_joint_space_holds_the_bridge_features_and_a_constant(items: Items, space: Space) -> None:
    model = space()
    fitted = fit_closed_form(model, items, bridge="gene")
    z = {m: model.project(m, items.inputs[m], unit=False) for m in ("gene", "text", "image")}
    assert model.config.projection_dim == 6
    assert np.allclose(z["gene"][:, :-1], items.inputs["gene"], atol=1e-6)
    assert np.allclose(z["gene"][:, -1], np.sqrt(5))
    assert np.allclose(z["image"][:, -1], np.sqrt(5))
    assert not z["text"][:, -1].any()
    weight, alpha = solve_ridge(
        items.inputs["image"].astype(float), items.inputs["gene"][:32].astype(float), pair_units(items, "gene")
    )
    assert np.allclose(z["image"][:, :-1], items.inputs["image"] @ weight.T, atol=1e-5)
    assert fitted.penalties["ridge_alpha"] == alpha
    directions = caption_directions(
        items.inputs["gene"][32:].astype(float), np.eye(4, dtype=bool)[items.index["text"][32:]], items.group[32:]
    )
    assert np.allclose(
        z["text"][:, :-1], items.inputs["text"] @ text_map(items.inputs["text"], directions).T, atol=1e-5
    )
    # logits are in standard deviations of the scores of training rows, and cosines are never shrunk
    assert model.scale == pytest.approx(max(1, np.sqrt(5) * np.median(np.linalg.norm(z["text"], axis=1))), rel=1e-5)


def of_groups(items: Items) -> tuple[Items, Items]:
    """Items of two patients, whose rows have no caption in common."""
    own, other = (items.subset(np.flatnonzero(items.group == g)) for g in "ab")
    return own, other


def test_the_errors_on_held_out_items_are_those_of_the_same_maps(items: Items, space: Space) -> None:
    own, other = of_groups(items)
    plain, measured = space(), space()
    without = fit_closed_form(plain, own, bridge="gene").history
    history = fit_closed_form(measured, own, bridge="gene", validation=other).history.set_index("phase")
    assert "val_loss" not in without
    assert without["loss"].tolist() == history["loss"].tolist()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), measured.parameters(), strict=True))
    y = items.inputs["gene"].astype(float)
    z = {m: measured.project(m, items.inputs[m], unit=False)[:, :-1] for m in ("image", "text")}
    mean = y[1:32:2].mean(axis=0)
    for start, column in ((1, "loss"), (0, "val_loss")):
        expected = np.square(z["image"][start::2] + mean - y[start:32:2]).mean()
        assert history[column]["image-gene"] == pytest.approx(expected, rel=1e-4)
        rows = np.arange(32 + start, 48, 2)
        holds = np.eye(4, dtype=bool)[items.index["text"][rows]]
        directions = caption_directions(y[rows], holds, np.repeat("p", len(rows)))
        seen = holds.any(axis=0)
        expected = np.square(z["text"][seen] - directions.T[seen]).mean()
        assert history[column]["gene-text"] == pytest.approx(expected, rel=1e-3)


def test_a_link_that_held_out_items_do_not_hold_has_no_error(items: Items, space: Space) -> None:
    own, other = of_groups(items)
    images = other.subset(np.flatnonzero(other.index["image"] >= 0))
    history = fit_closed_form(space(), own, bridge="gene", validation=images).history.set_index("phase")
    assert history["val_loss"].isna().to_dict() == {"gene-text": True, "image-gene": False}
    single = fit_closed_form(space(), own, bridge="gene", validation=images.subset(np.arange(1))).history
    assert "val_loss" not in single


def test_captions_of_held_out_rows_alone_change_nothing(items: Items, space: Space) -> None:
    own, _ = of_groups(items)
    seen = np.unique(own.index["text"][own.index["text"] >= 0])
    assert seen.tolist() == [1, 3]
    place = np.where(own.index["text"] < 0, -1, np.searchsorted(seen, own.index["text"]))
    alone = replace(own, inputs={**own.inputs, "text": own.inputs["text"][seen]}, index={**own.index, "text": place})
    models = space(), space()
    fits = [fit_closed_form(model, some, bridge="gene") for model, some in zip(models, (own, alone), strict=True)]
    assert fits[0].history["loss"].tolist() == pytest.approx(fits[1].history["loss"].tolist())
    assert models[0].scale == pytest.approx(models[1].scale)


def test_rows_of_a_caption_score_higher_on_it_than_on_others(items: Items, space: Space) -> None:
    model = space()
    fit_closed_form(model, items, bridge="gene")
    scores = model.project("gene", items.inputs["gene"][32:]) @ model.project("text", items.inputs["text"]).T
    assert (scores.argmax(axis=1) == items.index["text"][32:]).mean() > 0.7


def test_neighbours_have_their_part_of_an_image_embedding(items: Items, space: Space) -> None:
    alone, mixed, linked = space(), space(), space()
    fit_closed_form(alone, items, bridge="gene")
    fit_closed_form(mixed, items, bridge="gene", neighbour_weight=0.25)
    x, xy = items.inputs["image"], np.random.default_rng(0).uniform(size=(32, 2))
    own = alone.project("image", x, unit=False)
    near = section_neighbours(xy, np.zeros(32), 8)
    w = np.exp(-np.square(near.offsets[:, 1:]).sum(axis=2) / 2)
    mean = (w[..., None] * own[near.index[:, 1:]]).sum(axis=1) / w.sum(axis=1, keepdims=True)
    got = mixed.project("image", x, positions=xy, unit=False)
    assert np.allclose(got, 0.75 * own + 0.25 * mean, atol=1e-4)
    # the same link put in place of another one
    fit_closed_form(linked, items, bridge="gene")
    weight: Any = alone.heads["image"].weight
    install_image_link(linked, weight[:-1].detach().double().numpy(), neighbour_weight=0.25)
    assert np.allclose(linked.project("image", x, positions=xy, unit=False), got, atol=1e-6)


# ------------------------------------------------------------------------------------------------- end to end


@pytest.fixture(scope="module")
def closed(simulated: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model in closed form of the first two sections and the reference."""
    return train(simulated, folder=tmp_path_factory.mktemp("closed"))


def train(simulated: Any, preset: Any = "whisperer", **options: Any) -> Any:
    data = [simulated.sections["P1"], simulated.sections["P2"], simulated.reference]
    return sw.tl.train(data, preset=preset, image=TILES, **{"expression": False, **options})


def test_joint_space_is_that_of_the_gene_features(closed: Any, simulated: Any) -> None:
    encoder = closed.encoders["gene"]
    assert closed.config.training.schedule == "sequential"
    assert closed.config.projection_dim == encoder.dim + 1
    assert {m.head.kind for m in closed.config.modalities.values()} == {"linear"}
    assert list(closed.history["phase"]) == ["gene-text", "image-gene"]
    assert "too few patients" in closed.config.training.refinement.reason
    genes = sw.pp.embed_genes(simulated.reference, encoder, inplace=False)
    z = closed.project("gene", genes, unit=False)
    assert np.allclose(z[:, :-1], closed.standardized("gene", genes), atol=1e-5)
    assert np.ptp(z[:, -1]) == 0


def test_labels_of_a_held_out_section(closed: Any, simulated: Any, labels: dict[str, str]) -> None:
    table = simulated.sections["P3"]["table"].copy()
    scores: Any = sw.tl.zero_shot_annotate(table, labels, model=closed, modality="image", inplace=False)
    truth = table.obs["cell_type"].astype(str)
    aurocs = [roc_auc_score(truth == name, scores[name]) for name in labels if 0 < (truth == name).sum() < len(truth)]
    # measured .94
    assert np.mean(aurocs) > 0.85


def test_scores_keep_the_order_of_the_dot_products(closed: Any, simulated: Any, labels: dict[str, str]) -> None:
    """Rows of unit length alone would lose how sure a prediction is."""
    table = simulated.sections["P3"]["table"].copy()
    scores: Any = sw.tl.zero_shot_annotate(table, labels, model=closed, modality="image", inplace=False)
    z = closed.project("image", table.obsm["X_stain_texture"], positions=table.obsm["spatial"], unit=False)
    text = closed.project("text", sw.pp.embed_texts(list(labels.values())))
    dots = z[:, :-1] @ text[:, :-1].T
    for column, name in enumerate(labels):
        assert spearmanr(scores[name], dots[:, column]).statistic > 0.98


def test_half_of_an_image_embedding_is_the_mean_of_its_neighbours(simulated: Any, tmp_path: Any) -> None:
    preset = sw.models.get_preset("whisperer")
    half = train(simulated, preset.replace(neighbour_weight=0.5, refine="never"), folder=tmp_path)
    table = simulated.sections["P3"]["table"]
    x, xy = table.obsm["X_stain_texture"], np.asarray(table.obsm["spatial"], float)
    weight = half.heads["image"].weight.detach().numpy()
    own = half.standardized("image", x) @ (2 * weight[:-1, : x.shape[1]]).T
    near = section_neighbours(xy, np.zeros(len(xy)), 8)
    w = np.exp(-np.square(near.offsets[:, 1:]).sum(axis=2) / 2) * (near.index[:, 1:] >= 0)
    mean = (w[..., None] * own[near.index[:, 1:]]).sum(axis=1) / w.sum(axis=1, keepdims=True)
    z = half.project("image", x, positions=xy, unit=False)
    assert np.allclose(z[:, :-1], (own + mean) / 2, atol=1e-3)


def test_the_seed_does_not_matter(closed: Any, simulated: Any, tmp_path: Any) -> None:
    again = train(simulated, random_state=7, gene=closed.encoders["gene"], folder=tmp_path)
    for modality in ("gene", "text", "image"):
        assert torch.equal(again.heads[modality].weight, closed.heads[modality].weight)


def test_saved_and_opened_it_answers_alike(closed: Any, simulated: Any, labels: dict[str, str], tmp_path: Any) -> None:
    table = simulated.sections["P3"]["table"].copy()
    opened = sw.models.Whisperer.load(closed.save(tmp_path / "model"))
    answers: list[Any] = [sw.tl.zero_shot_annotate(table, labels, model=m, inplace=False) for m in (closed, opened)]
    assert answers[0].equals(answers[1])


def test_images_without_positions_have_no_neighbours(simulated: Any, tmp_path: Any) -> None:
    parts = []
    for name in ("P1", "P2"):
        table = simulated.sections[name]["table"].copy()
        table.uns.pop("spatialdata_attrs")
        del table.obsm["spatial"]
        parts.append(table)
    image = sw.tl.ImageFeatures(key="X_stain_texture")
    data = [*parts, simulated.reference]
    model = sw.tl.train(data, preset="whisperer", image=image, expression=False, folder=tmp_path)
    assert not model.contexts
    assert model.project("image", parts[0].obsm["X_stain_texture"]).shape[0] == parts[0].n_obs


def test_a_contrastive_link_is_trained(simulated: Any, tmp_path: Any) -> None:
    preset = sw.models.get_preset("whisperer").replace(image_link="contrastive", projection_dim=8)
    model = train(simulated, preset, max_epochs=1, folder=tmp_path)
    assert model.config.projection_dim == 8
    assert model.config.modalities["gene"].head.kind == "linear_norm"


@pytest.mark.slow
def test_expression_beside_it(simulated: Any, tmp_path: Any) -> None:
    """The predictor embeds images as the model does, neighbours included, in every held-out fold too."""
    preset = sw.models.get_preset("whisperer")
    assert preset.expression is not None
    preset = preset.replace(expression=replace(preset.expression, n_genes=20))
    model = train(simulated, preset, expression=True, folder=tmp_path)
    assert model.config.training.schedule == "sequential"
    assert np.isfinite(model.expression.held_out("both")).any()
    table = simulated.sections["P3"]["table"].copy()
    predicted: Any = sw.tl.predict_expression(table, model=model, inplace=False)
    values = predicted.X if hasattr(predicted, "X") else predicted
    assert np.isfinite(np.asarray(values)).all()


# ------------------------------------------------------------------------------------------------- real sections


@pytest.mark.slow
def test_labels_of_another_patient(data_folder: Any, tmp_path: Any) -> None:
    """A1 trains the image link, C3 is annotated; texts are those of every third section of the other patients."""
    from spatialwhisperer.protocols import captions
    from spatialwhisperer.protocols.annotation import splits
    from spatialwhisperer.protocols.annotation.scores import aurocs

    images = {name: splits._image_table(data_folder, name, {48}) for name in ("A1", "C3")}
    others = [n for n in splits.sections_without_image(data_folder) if n[0] != "C"][::3]
    texts = splits.table_alone(sw.datasets.her2st(others, data_dir=data_folder, with_image=False))
    captions.add_captions(texts)
    model = sw.tl.train(
        [images["A1"], texts, splits.labelled_cells(data_folder)],
        preset="whisperer",
        image=sw.tl.ImageFeatures(key=splits.image_key(48, splits.SEVERAL_UM)),
        gene=sw.tl.GeneFeatures(options={"max_epochs": 12}),
        text=sw.tl.TextFeatures(key=captions.SEVERAL_COLUMNS),
        expression=False,
        folder=tmp_path,
    )
    scores = sw.tl.zero_shot_annotate(images["C3"], captions.TARGETS, model=model, modality="image", inplace=False)
    found = aurocs(scores, captions.targets(images["C3"]))
    # measured .71 on ten classes
    assert len(found) == 10
    assert 0.66 < found["auroc"].mean() < 0.8
