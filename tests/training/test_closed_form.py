from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import spatialwhisperer as sw
from spatialwhisperer.retrieval.neighbours import section_neighbours
from spatialwhisperer.training.closed_form import caption_directions, text_map


@pytest.fixture(scope="module")
def closed(simulated: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model in closed form of the first two sections and the reference."""
    return train(simulated, folder=tmp_path_factory.mktemp("closed"))


def train(simulated: Any, **options: Any) -> Any:
    data = [simulated.sections["P1"], simulated.sections["P2"], simulated.reference]
    slot = {"image_features": "X_stain_texture"}
    return sw.tl.train(data, preset="whisperer", expression=False, **slot, **options)


# ------------------------------------------------------------------------------------------------- the parts


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


# ------------------------------------------------------------------------------------------------- the model


def test_joint_space_is_that_of_the_gene_features(closed: Any, simulated: Any) -> None:
    assert closed.config["training"]["schedule"] == "sequential"
    assert closed.config["projection_dim"] == closed.gene_encoder.dim + 1
    assert {h["kind"] for h in closed.config["heads"].values()} == {"linear"}
    assert list(closed.history["phase"]) == ["gene-text", "image-gene"]
    genes = sw.pp.embed_genes(simulated.reference, closed.gene_encoder, inplace=False)
    z = closed.project("gene", genes, unit=False)
    assert np.allclose(z[:, :-1], closed.standardized("gene", genes), atol=1e-5)
    assert np.ptp(z[:, -1]) == 0


def test_labels_of_a_held_out_section(closed: Any, simulated: Any, labels: dict[str, str]) -> None:
    table = simulated.sections["P3"]["table"].copy()
    scores = sw.tl.zero_shot_annotate(table, labels, model=closed, modality="image", inplace=False)
    truth = table.obs["cell_type"].astype(str)
    aurocs = [roc_auc_score(truth == name, scores[name]) for name in labels if 0 < (truth == name).sum() < len(truth)]
    # measured .94
    assert np.mean(aurocs) > 0.85


def test_scores_keep_the_order_of_the_dot_products(closed: Any, simulated: Any, labels: dict[str, str]) -> None:
    """Rows of unit length alone would lose how sure a prediction is."""
    table = simulated.sections["P3"]["table"].copy()
    scores = sw.tl.zero_shot_annotate(table, labels, model=closed, modality="image", inplace=False)
    z = closed.project("image", table.obsm["X_stain_texture"], positions=table.obsm["spatial"], unit=False)
    text = closed.project("text", sw.pp.embed_texts(list(labels.values())))
    dots = z[:, :-1] @ text[:, :-1].T
    for column, name in enumerate(labels):
        ranks = [np.argsort(np.argsort(v)) for v in (scores[name].to_numpy(), dots[:, column])]
        assert np.corrcoef(*ranks)[0, 1] > 0.98


def test_half_of_an_image_embedding_is_the_mean_of_its_neighbours(closed: Any, simulated: Any) -> None:
    table = simulated.sections["P3"]["table"]
    x, xy = table.obsm["X_stain_texture"], np.asarray(table.obsm["spatial"], float)
    weight = closed.heads["image"].weight.detach().numpy()
    own = closed.standardized("image", x) @ (2 * weight[:-1, : x.shape[1]]).T
    near = section_neighbours(xy, np.zeros(len(xy)), 8)
    w = np.exp(-np.square(near.offsets[:, 1:]).sum(axis=2) / 2) * (near.index[:, 1:] >= 0)
    mean = (w[..., None] * own[near.index[:, 1:]]).sum(axis=1) / w.sum(axis=1, keepdims=True)
    z = closed.project("image", x, positions=xy, unit=False)
    assert np.allclose(z[:, :-1], (own + mean) / 2, atol=1e-3)


def test_no_seed_no_trainer(closed: Any, simulated: Any, tmp_path: Any) -> None:
    again = train(simulated, random_state=7, gene_encoder=closed.gene_encoder, folder=tmp_path)
    for modality in ("gene", "text", "image"):
        assert torch.equal(again.heads[modality].weight, closed.heads[modality].weight)


def test_saved_and_opened_it_answers_alike(closed: Any, simulated: Any, labels: dict[str, str], tmp_path: Any) -> None:
    table = simulated.sections["P3"]["table"].copy()
    opened = sw.models.Whisperer.load(closed.save(tmp_path / "model"))
    answers = [sw.tl.zero_shot_annotate(table, labels, model=m, inplace=False) for m in (closed, opened)]
    assert answers[0].equals(answers[1])


def test_images_without_positions_see_no_neighbours(simulated: Any, tmp_path: Any) -> None:
    parts = []
    for name in ("P1", "P2"):
        table = simulated.sections[name]["table"].copy()
        table.uns.pop("spatialdata_attrs")
        del table.obsm["spatial"]
        parts.append(table)
    model = sw.tl.train(
        [*parts, simulated.reference],
        preset="whisperer",
        image_features="X_stain_texture",
        expression=False,
        folder=tmp_path,
    )
    assert not model.contexts
    assert model.project("image", parts[0].obsm["X_stain_texture"]).shape[0] == parts[0].n_obs


def test_a_link_that_learns_is_trained(simulated: Any, tmp_path: Any) -> None:
    model = train(simulated, image_link="contrastive", max_epochs=1, projection_dim=8, folder=tmp_path)
    assert model.config["projection_dim"] == 8
    assert model.config["heads"]["gene"]["kind"] == "linear_norm"


def test_the_joint_space_has_no_dimension_to_choose(simulated: Any) -> None:
    with pytest.raises(ValueError, match="projection_dim=16"):
        train(simulated, projection_dim=16)


def test_expression_beside_it(simulated: Any, tmp_path: Any) -> None:
    """The predictor embeds images as the model does, neighbours included, in every held-out fold too."""
    preset = sw.models.get_preset("whisperer")
    preset = replace(preset, expression=replace(preset.expression, n_genes=20))
    data = [simulated.sections["P1"], simulated.sections["P2"], simulated.reference]
    model = sw.tl.train(data, preset=preset, image_features="X_stain_texture", folder=tmp_path)
    assert model.config["training"]["schedule"] == "sequential"
    assert np.isfinite(model.expression.held_out("both")).any()
    table = simulated.sections["P3"]["table"].copy()
    predicted = sw.tl.predict_expression(table, model=model, inplace=False)
    values = predicted.X if hasattr(predicted, "X") else predicted
    assert np.isfinite(np.asarray(values)).all()


# ------------------------------------------------------------------------------------------------- real sections


@pytest.mark.slow
def test_labels_of_another_patient(data_folder: Any, tmp_path: Any) -> None:
    """A1 trains the image link, C3 is annotated; texts are those of every third section of the other patients."""
    from spatialwhisperer.protocols import annotation as benchmark
    from spatialwhisperer.protocols import her2st_text as words

    images = {name: benchmark._image_table(data_folder, name, {48}) for name in ("A1", "C3")}
    others = [n for n in benchmark._text_sections(data_folder) if n[0] != "C"][::3]
    texts = benchmark._plain(sw.datasets.her2st(others, data_dir=data_folder, with_image=False))
    words.add_captions(texts)
    cells = benchmark._cells(data_folder)
    model = sw.tl.train(
        [images["A1"], texts, cells],
        preset="whisperer",
        image_features=benchmark.image_slot(48, benchmark.TWO_SIZES),
        text_key=words.SEVERAL_COLUMNS,
        expression=False,
        folder=tmp_path,
    )
    scores = sw.tl.zero_shot_annotate(images["C3"], words.TARGETS, model=model, modality="image", inplace=False)
    found = benchmark.aurocs(scores, words.targets(images["C3"]))
    # measured .71 on ten classes
    assert len(found) == 10
    assert 0.66 < found["auroc"].mean() < 0.8
