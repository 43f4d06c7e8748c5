from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer.statistics import bridge
from spatialwhisperer.statistics import transitivity as tr
from spatialwhisperer.statistics.bootstrap import Bootstrap, auroc, interval, spatial_blocks
from spatialwhisperer.tl.transitivity import transitivity

if TYPE_CHECKING:
    from pathlib import Path

mpl.use("agg")

U = 12


def cloud(n: int, seed: int, centre: np.ndarray | float = 0.0, width: float = 0.5) -> np.ndarray:
    """Unit rows around a direction."""
    axis = np.eye(U)[0] if np.isscalar(centre) else np.asarray(centre)
    return bridge.unit(axis + width * np.random.default_rng(seed).normal(size=(n, U)))


# ------------------------------------------------------------------------------------------------- the inequality


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_holds_on_glued_chains(seed: int) -> None:
    """E[1 - cos(I, T)] <= (√ε₁ + √δ + √ε₂)² for any unit vectors, near or unrelated."""
    rng = np.random.default_rng(seed)
    image = bridge.unit(rng.normal(size=(300, 6)))
    noise = (0.1, 0.3, 1.0, 5.0)
    gene = bridge.unit(image + rng.choice(noise) * rng.normal(size=image.shape))
    other = bridge.unit(gene + rng.choice(noise) * rng.normal(size=image.shape))
    text = bridge.unit(other + rng.choice(noise) * rng.normal(size=image.shape))
    errors = [tr.link_errors(a, b) for a, b in ((image, gene), (gene, other), (other, text))]
    direct = tr.link_errors(image, text)
    assert direct.mean() <= tr.bound(*(e.mean() for e in errors)) + 1e-12
    # also in every resampling, which reweights the same chains
    boot = Bootstrap(np.arange(300), 50, seed)
    assert (boot.means(direct) <= tr.bound(*(boot.means(e) for e in errors)) + 1e-12).all()


def test_the_bound_is_reached_on_a_line() -> None:
    """Small steps of one length in one direction use the inequality up."""
    angle = 1e-3
    at = [np.tile([np.cos(i * angle), np.sin(i * angle)], (5, 1)) for i in range(4)]
    errors = [tr.link_errors(at[i], at[i + 1]).mean() for i in range(3)]
    assert tr.link_errors(at[0], at[3]).mean() == pytest.approx(tr.bound(*errors), rel=1e-5)
    assert tr.as_distance(tr.bound(*errors)) == pytest.approx(3 * angle, rel=1e-5)
    assert tr.as_distance(2.0) == 2


# ------------------------------------------------------------------------------------------------- links


def test_errors_and_retrieval_of_known_pairs() -> None:
    axes = np.eye(8)
    assert np.allclose(tr.link_errors(axes, axes), 0)
    assert np.allclose(tr.link_errors(axes, np.roll(axes, 1, axis=0)), 1)
    assert np.allclose(tr.link_errors(axes, -axes), 2)
    sections = np.repeat(["a", "b"], 4)
    perfect = tr.retrieval(axes, axes, sections, k=1)
    assert (perfect.above == 1).all()
    assert (perfect.found == 1).all()
    assert (perfect.chance == 0.25).all()
    # the partner is one of four; in the other section nothing is compared
    shifted = tr.retrieval(axes, np.vstack([np.roll(axes[:4], 1, axis=0), axes[4:]]), sections, k=1)
    assert np.allclose(shifted.above[:4], 1 / 3, atol=1e-9)  # one is nearer, the two others tie
    assert (shifted.above[4:] == 1).all()
    alone = tr.retrieval(axes[:1], axes[:1], sections[:1])
    assert np.isnan(alone.above).all()
    a, b = cloud(400, 0, width=2), cloud(400, 1, width=2)
    assert tr.retrieval(a, b, np.zeros(400)).above.mean() == pytest.approx(0.5, abs=0.03)


def test_rank_of_captions() -> None:
    caption = np.eye(4)
    assert (tr.caption_ranks(caption, caption, np.arange(4)) == 1).all()
    assert np.allclose(tr.caption_ranks(-caption, caption, np.arange(4)), 0)
    assert np.allclose(tr.caption_ranks(np.ones((1, 4)) / 2, caption, np.array([2])), 0.5)


# ------------------------------------------------------------------------------------------------- bridge


def test_identical_clouds_overlap() -> None:
    rows, reference = cloud(400, 0), cloud(400, 1)
    assert bridge.overlap(reference, reference).covered.all()
    assert np.allclose(bridge.overlap(reference, reference).error, 0, atol=1e-12)
    assert bridge.overlap(rows, reference, k=15).covered.mean() > 0.9
    x, own = np.vstack([rows, reference]), np.arange(800) < 400
    for method in ("logistic", "knn"):
        for centre in (False, True):
            scores = bridge.separability(x, own, np.arange(800), method, centre=centre)
            assert auroc(scores, own) == pytest.approx(0.5, abs=0.06)
    assert bridge.mixing(x, own).mean() == pytest.approx(1, abs=0.06)
    statistic, p = bridge.mmd(x, own)
    assert abs(statistic) < 0.002
    assert p > 0.05


def test_shifted_clouds_are_apart_until_they_are_centred() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(400, U))
    rows = rng.normal(size=(400, U)) + 8 * np.eye(U)[3]
    assert bridge.overlap(rows, reference).covered.mean() == 0
    assert bridge.overlap(rows - rows.mean(0), reference - reference.mean(0), k=15).covered.mean() > 0.8
    x, own = np.vstack([rows, reference]), np.arange(800) < 400
    assert auroc(bridge.separability(x, own, np.arange(800), "logistic"), own) == 1
    assert auroc(bridge.separability(x, own, np.arange(800), "logistic", centre=True), own) == pytest.approx(
        0.5, abs=0.06
    )
    assert bridge.mixing(x, own).mean() == 0
    assert bridge.mmd(x, own)[1] < 0.01
    with pytest.raises(ValueError, match="'logistic' or 'knn'"):
        bridge.separability(x, own, np.arange(800), "forest")
    with pytest.raises(ValueError, match="two blocks"):
        bridge.separability(x, own, own.astype(int), "knn")
    with pytest.raises(ValueError, match="at least two rows"):
        bridge.overlap(rows, reference[:1])


def test_distances_to_other_groups() -> None:
    reference = np.array([[0.0, 0], [0, 1], [5, 0], [5, 3]])
    groups = np.array([0, 0, 1, 1])
    assert np.allclose(bridge.to_other_groups(reference, groups), [5, np.sqrt(26), 5, np.sqrt(29)])
    assert np.allclose(bridge.to_other_groups(reference, np.zeros(4)), [1, 1, 3, 3])


def test_a_lone_reference_row_does_not_cover_half_the_space() -> None:
    reference = np.vstack([np.random.default_rng(0).normal(size=(100, 2)), [[1000, 1000]]])
    assert bridge.radii(reference).max() < 5
    assert not bridge.overlap(np.array([[900.0, 900.0]]), reference).covered.any()


# ------------------------------------------------------------------------------------------------- prompts, agreement


def test_orthogonal_and_equal_prompts() -> None:
    text = np.eye(U)[:4]
    rows = np.vstack([cloud(50, i, centre=text[i], width=0.1) for i in range(4)])
    labels = tr.prompts(text, rows)
    assert np.allclose(labels.distance, np.sqrt(2) * (1 - np.eye(4)))
    assert np.allclose(labels.margin, np.sqrt(2))
    assert np.allclose(labels.share, 0.25)
    assert labels.together() == []
    near = bridge.unit(np.vstack([text, text[3] + 0.01 * np.eye(U)[7]]))
    labels = tr.prompts(near, rows)
    assert labels.margin.min() == pytest.approx(0.01, rel=0.01)
    assert labels.together() == [(3, 4)]
    hub = tr.prompts(text, cloud(100, 0, centre=text[2], width=0.1))
    assert hub.share[2] == 1
    assert hub.sink.argmax() == 2


def test_agreement_of_known_labellings() -> None:
    from sklearn.metrics import cohen_kappa_score, roc_auc_score

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    assert tr.kappa(a, a, 3) == 1
    assert tr.kappa(a, b, 3) == pytest.approx(cohen_kappa_score(a, b))
    assert np.isnan(tr.kappa(np.zeros(5), np.zeros(5), 3))
    weights = np.ones((1, 200))
    weights[0, :50] = 2
    doubled = np.r_[np.arange(200), np.arange(50)]
    assert tr.kappa(a, b, 3, weights)[0] == pytest.approx(cohen_kappa_score(a[doubled], b[doubled]))
    scores = rng.normal(size=200).round(1)
    assert auroc(scores, a == 1) == pytest.approx(roc_auc_score(a == 1, scores))
    assert auroc(scores, a == 1, weights)[0] == pytest.approx(roc_auc_score(a[doubled] == 1, scores[doubled]))
    assert np.isnan(auroc(scores, np.zeros(200, bool)))
    each = tr.class_aurocs(np.eye(3)[a], np.r_[np.full(197, 0), [1, 1, 1]])
    assert np.isfinite(each[0]) == False  # noqa: E712
    assert tr.macro(np.array([np.nan, 0.4, 0.6])) == 0.5
    assert np.isnan(tr.macro(np.array([np.nan])))


# ------------------------------------------------------------------------------------------------- bootstrap


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for i in range(100):
        low, high = Bootstrap(np.arange(80), 100, i).mean(rng.normal(size=80))
        hits += low < 0 < high
    assert 85 <= hits <= 100


def test_blocks_of_neighbours_widen_the_interval() -> None:
    blocks = np.repeat(np.arange(20), 10)
    values = np.repeat(np.random.default_rng(0).normal(size=20), 10)
    by_row, by_block = Bootstrap(np.arange(200), 300, 0).mean(values), Bootstrap(blocks, 300, 0).mean(values)
    assert np.diff(by_block) > 2 * np.diff(by_row)
    assert interval(np.array([1.0, np.nan, np.nan])) == pytest.approx((np.nan, np.nan), nan_ok=True)


def test_blocks_are_neighbours_within_sections() -> None:
    rng = np.random.default_rng(0)
    xy, sections = rng.uniform(size=(300, 2)), np.repeat(["a", "b"], 150)
    blocks = spatial_blocks(xy, sections)
    sizes = np.bincount(blocks)
    assert 8 <= sizes[sizes > 0].min() <= sizes.max() <= 18
    assert not set(blocks[:150]) & set(blocks[150:])
    spread = np.mean([xy[blocks == b].std(axis=0).mean() for b in np.unique(blocks)])
    assert spread < 0.5 * xy.std(axis=0).mean()
    assert np.array_equal(spatial_blocks(None, sections), np.arange(300))


# ------------------------------------------------------------------------------------------------- the report

PAIRED = {
    "transitive_consistency",
    "label_kappa",
    "image_gene_error",
    "image_gene_rank",
    "bound_distance",
    "chain_error",
}
EXPRESSION = {"coverage", "bridge_error", "bridge_auroc", "bridge_mixing", "bridge_mmd_p", "expression_surprise"}
ALWAYS = {"prompt_margin", "largest_hub"}


@pytest.fixture(scope="module")
def report(simulated: Any, model: Any, labels: dict[str, str]) -> pd.DataFrame:
    return transitivity(simulated.sections["P3"], model=model, labels=labels, n_bootstrap=60)


def test_a_good_setting(report: pd.DataFrame, simulated: Any) -> None:
    """Another patient of the same simulated tissue: everything there, and nothing written."""
    assert list(report.index[:2]) == ["transitive_consistency", "coverage"]
    assert set(report.index) >= PAIRED | EXPRESSION | ALWAYS | {"image_coverage", "image_distance", "image_scale"}
    value = report["value"]
    assert value["transitive_consistency"] > 0.7
    # spots are mixtures of cells, and captions came with single cells
    assert value["coverage"] > 0.4
    assert report.attrs["expression_alike"] > 0.8
    assert value["image_gene_rank"] > 0.6
    assert value["chain_error"] <= value["bound_distance"] ** 2 / 2
    inside = report.dropna(subset=["low"])
    assert (inside["low"] <= inside["high"]).all()
    assert (report["meaning"].str.len() > 20).all()
    assert report.attrs["untestable"] == []
    assert report.attrs["range"] == []
    assert report.attrs["n"] == 120
    assert report.attrs["intervals"] == "60 resamplings of 9 blocks of neighbouring rows"
    table = simulated.sections["P3"]["table"]
    assert "X_sw_image" not in table.obsm
    assert set(table.obs) == set(simulated.sections["P1"]["table"].obs)


def test_details_are_plain(report: pd.DataFrame, labels: dict[str, str]) -> None:
    import json

    attrs = json.loads(json.dumps(report.attrs))
    assert attrs["classes"] == list(labels)
    assert np.shape(attrs["prompt_distance"]) == (5, 5)
    assert sum(attrs["class_rows"]) == 120
    assert attrs["safe_labels"] >= 0
    assert ("Vacuous" in report.loc["bound_distance", "meaning"]) == (attrs["safe_labels"] == 0)


def test_the_seed_decides_and_the_model_may_be_a_folder(
    report: pd.DataFrame, simulated: Any, model: Any, labels: Any
) -> None:
    again = transitivity(simulated.sections["P3"], model=model.folder, labels=labels, n_bootstrap=60)
    pd.testing.assert_frame_equal(report, again)


def test_shuffled_tiles_are_noticed(section: Any, model: Any, labels: Any, report: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    x = section["table"].obsm["X_stain_texture"]
    section["table"].obsm["X_stain_texture"] = x[rng.permutation(len(x))]
    bad = transitivity(section, model=model, labels=labels, n_bootstrap=60)
    assert bad.loc["transitive_consistency", "value"] < report.loc["transitive_consistency", "value"] - 0.15
    assert "no better than by chance" in bad.loc["transitive_consistency", "meaning"]
    assert "registered" in bad.loc["image_gene_rank", "meaning"]
    assert bad.loc["coverage", "value"] == report.loc["coverage", "value"]


def test_other_expression_is_noticed(section: Any, model: Any, labels: Any) -> None:
    """The same counts under other genes: an embedding lands somewhere, the counts tell."""
    table = section["table"]
    order = np.random.default_rng(0).permutation(table.n_vars)
    table.X = table.X[:, order]
    bad = transitivity(section, model=model, labels=labels, n_bootstrap=60)
    assert bad.loc["coverage", "value"] < 0.2
    assert "do not expect" in bad.loc["coverage", "meaning"]


def test_an_image_alone_is_untestable(section: Any, model: Any, labels: Any) -> None:
    table = section["table"]
    bare = ad.AnnData(
        np.zeros((table.n_obs, 0), np.float32), obs=table.obs.copy(), obsm={"spatial": table.obsm["spatial"]}
    )
    bare.obsm["X_stain_texture"] = table.obsm["X_stain_texture"]
    got = transitivity(bare, model=model, labels=labels, n_bootstrap=30)
    assert np.isnan(got.loc[["transitive_consistency", "coverage"], "value"]).all()
    assert got.loc["coverage", "meaning"].startswith("Untestable: these data hold no expression")
    assert not set(got.index) & (PAIRED | EXPRESSION) - {"transitive_consistency", "coverage"}
    assert set(got.index) >= ALWAYS | {"image_coverage", "image_distance", "gene_text_rank"}
    assert len(sw_axes(got)) == 2


def test_cells_alone(simulated: Any, model: Any, labels: Any) -> None:
    cells = simulated.reference[:60].copy()
    got = transitivity(cells, model=model, labels=labels, n_bootstrap=30)
    assert got.loc["transitive_consistency", "meaning"].startswith("Untestable: these data hold no image")
    assert got.loc["coverage", "value"] > 0.8
    assert "image_coverage" not in got.index
    assert "60 rows" in got.attrs["intervals"]
    assert len(sw_axes(got)) == 3


def test_wrong_calls(section: Any, simulated: Any, model: Any, labels: Any) -> None:
    with pytest.raises(ValueError, match="n_bootstrap"):
        transitivity(section, model=model, labels=labels, n_bootstrap=3)
    with pytest.raises(ValueError, match="at least 20 are needed"):
        transitivity(section["table"][:10].copy(), model=model, labels=labels)
    no_text = sw.tl.train(list(simulated.sections.values())[:2], max_epochs=1)
    with pytest.raises(KeyError, match="no text side"):
        transitivity(section, model=no_text, labels=labels)
    empty = ad.AnnData(np.zeros((30, 0), np.float32))
    with pytest.raises(KeyError, match="nothing to judge"):
        transitivity(empty, model=model, labels=labels)
    kept, model.reference = model.reference, None
    try:
        with pytest.raises(ValueError, match="no sample of its training tissue"):
            transitivity(section, model=model, labels=labels)
    finally:
        model.reference = kept


# ------------------------------------------------------------------------------------------------- the picture


def sw_axes(report: pd.DataFrame) -> list[Any]:
    import matplotlib.pyplot as plt

    from spatialwhisperer.pl.transitivity import transitivity as draw

    axes = draw(report)
    axes[0].figure.canvas.draw()
    plt.close(axes[0].figure)
    return axes


def test_the_picture(report: pd.DataFrame) -> None:
    axes = sw_axes(report)
    assert len(axes) == 4
    texts = [t.get_text() for t in axes[0].texts]
    assert f"{report.loc['coverage', 'value']:.2f}" in texts
    assert len(axes[1].patches) == np.isfinite(report.attrs["class_auroc"]).sum()
    with pytest.raises(KeyError, match="no transitivity report"):
        sw_axes(pd.DataFrame({"value": [1.0]}, index=["other"]))


# ------------------------------------------------------------------------------------------------- real sections


@pytest.mark.slow
def test_real_sections_and_their_negatives(data_folder: Path) -> None:
    """A real section is covered by text of other patients; its counts under other genes are not, and tiles of other spots disagree."""
    from spatialwhisperer.protocols import her2st_text as words

    def table(name: str) -> Any:
        data = sw.datasets.her2st(name, data_dir=data_folder)
        sw.pp.embed_images(data, tile_um=154.0, tile_px=48, key_added="X_48")
        return data

    texts = sw.datasets.her2st(["B1", "D1", "G2", "H1"], data_dir=data_folder, with_image=False)
    words.add_captions(texts["table"])
    model = sw.tl.train(
        [table("C3"), table("C4"), texts],
        image_features="X_48",
        text_key=words.CAPTION_COLUMNS,
        projection_dim=64,
        schedule="sequential",
        max_epochs=20,
    )
    user = table("C5")
    good = transitivity(user, model=model, labels=words.TARGETS, n_bootstrap=50)
    assert good.loc["coverage", "value"] > 0.5
    assert good.loc["transitive_consistency", "value"] > 0.57
    assert good.loc["chain_error", "value"] <= good.loc["bound_distance", "value"] ** 2 / 2
    rng = np.random.default_rng(0)
    counts = user["table"].X
    user["table"].X = counts[:, rng.permutation(counts.shape[1])]
    assert transitivity(user, model=model, labels=words.TARGETS, n_bootstrap=50).loc["coverage", "value"] < 0.2
    user["table"].X = counts
    user["table"].obsm["X_48"] = rng.permutation(user["table"].obsm["X_48"])
    bad = transitivity(user, model=model, labels=words.TARGETS, n_bootstrap=50)
    assert bad.loc["transitive_consistency", "value"] < good.loc["transitive_consistency", "value"] - 0.05
