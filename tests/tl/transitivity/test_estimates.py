"""Estimates of the report on clouds of known shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spatialwhisperer.models.reference import Reference, ReferenceConfig
from spatialwhisperer.statistics.intervals.spatial import SpatialErrors
from spatialwhisperer.tl._annotation.range.training_range import SectionRange
from spatialwhisperer.tl._transitivity import estimates
from spatialwhisperer.tl._transitivity.estimates import SHOWN, Report, Rows

N, U = 80, 12
TEXT = np.eye(U)[:3]


def unit(z: np.ndarray) -> np.ndarray:
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def near(which: np.ndarray, seed: int, width: float = 0.2) -> np.ndarray:
    """Unit rows around the labels."""
    return unit(TEXT[which] + width * np.random.default_rng(seed).normal(size=(len(which), U)))


@pytest.fixture
def label() -> np.ndarray:
    return np.arange(N) % 3


@pytest.fixture
def reference() -> Reference:
    """Expression of sixty training rows of six patients around three captions, and what their counts gave."""
    which = np.arange(60) % 3
    arrays = {
        "text_bridge": near(which, 7),
        "text_caption": which,
        "text_group": np.arange(60) // 10,
        "caption": TEXT,
        "excess_cross_entropy": np.linspace(0.1, 0.5, 60),
        "feature_sample": np.random.default_rng(8).normal(size=(60, 4)),
    }
    return Reference(ReferenceConfig(captions=("a", "b", "c")), arrays)


def rows(image: np.ndarray | None, gene: np.ndarray | None, cross_entropy: np.ndarray | None = None) -> Rows:
    sections = np.array(["s"] * N)
    xy = np.stack(np.divmod(np.arange(N), 8), axis=1)
    return Rows(image, gene, sections, np.arange(N) // 4, SpatialErrors(xy, sections), cross_entropy)


def reported() -> Report:
    return Report(["a", "b", "c"])


# ------------------------------------------------------------------------------------------------- headlines


def test_image_and_expression_of_one_label_agree(label: np.ndarray, reference: Reference) -> None:
    out = reported()
    own = rows(near(label, 0), near(label, 1), np.full(N, 0.2))
    estimates.add_headlines(out, own, reference, TEXT)
    value = {name: q[0] for name, q in out.quantities.items()}
    assert list(value) == ["transitive_consistency", "coverage", "label_kappa"]
    assert value["transitive_consistency"] > 0.95
    assert value["label_kappa"] > 0.8
    assert value["coverage"] > 0.8
    assert out.attrs["class_rows"] == np.bincount(label).tolist()
    assert len(out.attrs["class_auroc"]) == len(out.attrs["class_low"]) == 3
    assert all(q[1] <= q[0] <= q[2] for q in out.quantities.values() if np.isfinite(q[1]))
    assert out.attrs["untestable"] == []


def test_unrelated_images_do_not_agree(label: np.ndarray, reference: Reference) -> None:
    out = reported()
    shuffled = np.random.default_rng(0).permutation(label)
    estimates.add_headlines(out, rows(near(shuffled, 0), near(label, 1)), reference, TEXT)
    value, low, _, meaning = out.quantities["transitive_consistency"]
    assert low < 0.5 < value + 0.1
    assert "no better than by chance" in meaning


def test_coverage_needs_near_expression_and_similar_counts(reference: Reference) -> None:
    known = reference.unit("text_bridge")[:40]
    gene = np.vstack([-known, known])
    counts = np.where(np.arange(N) % 2, 0.2, 9.0)
    counts[[41, 43]] = np.nan
    out = reported()
    estimates.add_headlines(out, rows(None, gene, counts), reference, TEXT)
    assert out.attrs["within_reach"] == 0.5
    # rows with too few counts for a cross-entropy do not count as similar
    assert out.attrs["expression_alike"] == pytest.approx(38 / 80)
    assert out.quantities["coverage"][0] == pytest.approx(18 / 80)


def test_headlines_that_cannot_be_estimated_say_why(label: np.ndarray, reference: Reference) -> None:
    out = reported()
    estimates.add_headlines(out, rows(near(label, 0), None), reference, TEXT)
    assert np.isnan([out.quantities[name][0] for name in ("transitive_consistency", "coverage")]).all()
    (sentence,) = out.attrs["untestable"]
    assert sentence.startswith("Untestable: these data hold no expression")
    out = reported()
    estimates.add_headlines(out, rows(None, near(label, 0)), Reference(), TEXT)
    assert [s[:40] for s in out.attrs["untestable"]] == [
        "Untestable: these data hold no image (or",
        "Untestable: the model was trained on no ",
    ]


def test_a_single_label_cannot_be_judged(reference: Reference) -> None:
    """The best label of nearly all rows is the same where the others lie far away."""
    gene = near(np.zeros(N, int), 1, width=0.01)
    text = np.stack([TEXT[0], TEXT[0], TEXT[0]])
    out = reported()
    estimates.add_headlines(out, rows(gene, gene), reference, text)
    assert np.isnan(out.quantities["transitive_consistency"][0])
    assert "so that no AUROC is defined" in out.quantities["transitive_consistency"][3]


# ------------------------------------------------------------------------------------------------- links, bridge


def test_links_of_equal_rows_have_no_error(label: np.ndarray) -> None:
    out = reported()
    z = near(label, 0)
    estimates.add_links(out, rows(z, z))
    value = {name: q[0] for name, q in out.quantities.items()}
    assert value["image_gene_error"] == pytest.approx(0, abs=1e-12)
    assert value["image_gene_error_centred"] == pytest.approx(0, abs=1e-12)
    assert value["image_gene_rank"] == 1
    assert value["image_gene_recall_10"] == 1
    out = reported()
    estimates.add_links(out, rows(z, None))
    assert not out.quantities


def test_a_constant_shift_disappears_after_centring(label: np.ndarray) -> None:
    gene = near(label, 0)
    out = reported()
    estimates.add_links(out, rows(unit(gene + 2 * np.eye(U)[9]), gene))
    assert out.quantities["image_gene_error"][0] > 5 * out.quantities["image_gene_error_centred"][0]


def test_captions_of_training_rows_are_ranked(reference: Reference) -> None:
    out = reported()
    estimates.add_gene_text(out, reference)
    assert out.quantities["gene_text_rank"][0] == 1
    gene = reference.unit("text_bridge")
    expected = 1 - (gene * TEXT[reference.arrays["text_caption"]]).sum(axis=1)
    assert out.quantities["gene_text_error"][0] == pytest.approx(expected.mean())
    out = reported()
    estimates.add_gene_text(out, Reference())
    assert not out.quantities


def test_the_bridge_to_the_same_tissue_is_short(label: np.ndarray, reference: Reference) -> None:
    value: dict[str, dict[str, float]] = {}
    for name, gene in (("same", near(label, 1)), ("other", unit(near(label, 1) + 3 * np.eye(U)[10]))):
        out = reported()
        estimates.add_bridge(out, rows(None, gene, np.full(N, 0.2)), reference, 0)
        value[name] = {k: q[0] for k, q in out.quantities.items()}
        assert set(out.attrs["bridge"]) == {"data", "training"}
        assert np.isfinite(out.attrs["bridge_mmd"])
    same, other = value["same"], value["other"]
    assert same["bridge_error"] < 0.3 < other["bridge_error"]
    assert same["bridge_auroc"] < 0.8 < other["bridge_auroc"]
    assert same["bridge_mixing"] > 0.7 > other["bridge_mixing"]
    assert same["bridge_reach"] > other["bridge_reach"] == 0
    # a constant shift is no difference after centring
    assert other["bridge_error_centred"] == pytest.approx(same["bridge_error_centred"], abs=0.1)
    assert same["expression_cross_entropy"] == pytest.approx(0.2)


def test_intervals_end_where_their_quantities_do(reference: Reference) -> None:
    """Few blocks of rows of which one is unlike the others have wide intervals."""
    which = np.zeros(N, int)
    gene, image = near(which, 1, width=1e-3), near(which, 2, width=1e-3)
    gene[:10] = -gene[:10]
    apart = unit(gene + 6 * np.eye(U)[10])
    apart[:4] = reference.unit("text_bridge")[:4]
    out = reported()
    estimates.add_links(out, rows(image, gene))
    assert out.quantities["image_gene_error"][1] == 0
    assert out.quantities["image_gene_error"][0] == pytest.approx(0.25, abs=0.01)
    out = reported()
    estimates.add_bridge(out, rows(None, apart), reference, 0)
    value, low, high, _ = out.quantities["bridge_mixing"]
    assert low == 0 < value < high


# ------------------------------------------------------------------------------------------------- prompts, chain, image


def test_the_most_frequent_label_is_named(label: np.ndarray) -> None:
    out = reported()
    estimates.add_prompts(out, rows(near(label, 0), None), TEXT)
    assert out.quantities["prompt_margin"][0] == pytest.approx(np.sqrt(2))
    assert out.quantities["largest_hub"][0] == pytest.approx(27 / 80, abs=0.05)
    assert out.attrs["prompt_fraction"] == pytest.approx([1 / 3] * 3, abs=0.05)
    assert out.attrs["prompts_together"] == []
    out = reported()
    estimates.add_prompts(out, rows(near(np.ones(N, int), 0), None), TEXT)
    assert out.quantities["largest_hub"][0] == 1
    assert out.quantities["largest_hub"][3].startswith("'b' is the best raw score of 100%")


def test_the_chain_ends_at_the_caption_of_the_nearest_training_row(label: np.ndarray, reference: Reference) -> None:
    out = reported()
    image, gene = near(label, 0), near(label, 1)
    estimates.add_chain(out, rows(image, gene), reference)
    value, low, high, meaning = out.quantities["chain_error"]
    nearest = (gene @ reference.unit("text_bridge").T).argmax(axis=1)
    assert value == pytest.approx(np.mean(1 - (image * TEXT[nearest % 3]).sum(axis=1)))
    assert low < value < high
    assert meaning.startswith("Image and caption of a row are")


def test_a_label_in_one_place_is_not_judged(reference: Reference) -> None:
    """Twelve rows are enough, one patch is not: an AUROC of it would be an accident."""
    which = np.zeros(N, int)
    which[40:] = 1
    which[[0, 1, 2, 8, 9, 10, 16, 17, 18, 24, 25, 26]] = 2
    out = reported()
    gene = near(which, 1, 0.02)
    estimates.add_headlines(out, rows(gene, gene), reference, TEXT)
    assert out.attrs["class_rows"][2] == 12
    assert out.attrs["class_patches"][2] < 3
    assert np.isnan(out.attrs["class_auroc"][2])


def test_images_are_compared_by_coverage_distance_and_scale(label: np.ndarray, reference: Reference) -> None:
    def section(name: str, **values: Any) -> SectionRange:
        usual = {"n_rows": N, "n_tissue": N, "mpp": 0.5, "factor": 1.0, "distance": 1.0, "limit": 2.0}
        return SectionRange(name, **(usual | values))

    out = reported()
    ranges = [section("usual"), section("far", distance=5.0), section("coarse", factor=3.0, mpp=1.5)]
    features = np.vstack([reference.arrays["feature_sample"][:40], np.full((40, 4), 50.0)])
    estimates.add_image(out, rows(near(label, 0), None), reference, features, ranges)
    assert out.quantities["image_coverage"][0] == 0.5
    # the section that differs most
    assert out.quantities["image_distance"][0] == 5
    assert "'far'" in out.quantities["image_distance"][3]
    assert out.quantities["image_scale"][0] == 3
    assert "'coarse' is read coarser" in out.quantities["image_scale"][3]
    out = reported()
    estimates.add_image(out, rows(near(label, 0), None), Reference(), None, [])
    assert not out.quantities


# ------------------------------------------------------------------------------------------------- the table


def test_the_report_keeps_its_order_and_details() -> None:
    out = reported()
    out.add("second", 2, "Two.", (1, 3))
    out.add("first", 1, "One.")
    out.untestable("third", "no reason.")
    out.untestable("fourth", "no reason.")
    frame = out.frame()
    assert frame.index.tolist() == ["second", "first", "third", "fourth"]
    assert frame.index.name == "quantity"
    assert frame.columns.tolist() == ["value", "low", "high", "meaning"]
    assert list(frame.loc["second", ["value", "low", "high"]]) == [2, 1, 3]
    assert frame.loc["first", ["low", "high"]].isna().all()
    assert frame.attrs["classes"] == ["a", "b", "c"]
    assert frame.attrs["untestable"] == ["Untestable: no reason."]


def test_many_values_are_thinned_evenly() -> None:
    shown = estimates._some(np.arange(5 * SHOWN, dtype=float)[::-1])
    assert len(shown) == SHOWN
    assert shown == sorted(shown)
    assert estimates._some(np.array([2.0, 1.0])) == [1.0, 2.0]
