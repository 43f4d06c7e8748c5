from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols.__main__ import main
from spatialwhisperer.protocols.benchmarks.retrieval import Combination, floor, on_arc, recall
from spatialwhisperer.protocols.benchmarks.retrieval_table import summary


def table(name: str, patient: str, seed: int, n: int = 60) -> Any:
    """Rows whose sixty genes follow three image features."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 3))
    loading = np.random.default_rng(99).normal(size=(3, 60))
    counts = rng.poisson(np.exp(2.5 + 0.4 * features @ loading))
    obs = pd.DataFrame({"section": name, "patient": patient}, index=[f"{name}:{i}" for i in range(n)])
    out = ad.AnnData(counts.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(60)]))
    out.obsm["X_image"] = features.astype(np.float32)
    out.obsm["spatial"] = rng.uniform(0, 1000, (n, 2))
    out.obs["sw_darkness"] = features[:, 0]
    return out


def by_hand(queries: np.ndarray, keys: np.ndarray, k: int) -> float:
    """Fraction of the rows whose partner is among the k most similar keys."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, keys)]
    hits = 0
    for i, query in enumerate(unit[0]):
        similarity = unit[1] @ query
        hits += i in np.argsort(-similarity)[:k]
    return hits / len(queries)


@pytest.mark.slow
def test_recall_is_counted_on_each_section_of_patients_that_were_left_out():
    train = [table(f"t{i}", f"P{i}", i) for i in range(3)]
    test = [table("a", "Q", 10), table("b", "Q", 11, 40)]
    found: Any = recall(train, test, Combination("whisperer", "image", "pca", 0), None)
    found = found[found["candidates"] == "section"].set_index("direction")
    for direction, (queries, keys) in {
        "image → gene": ("X_sw_image", "X_sw_gene"),
        "gene → image": ("X_sw_gene", "X_sw_image"),
    }.items():
        for k in (1, 5, 10):
            hand = np.mean([by_hand(t.obsm[queries], t.obsm[keys], k) for t in test])
            assert found.loc[direction, f"recall@{k}"] == pytest.approx(hand)
        assert found.loc[direction, "chance@10"] == pytest.approx((10 / 60 + 10 / 40) / 2)
        # the features say nearly all that the genes show
        assert found.loc[direction, "recall@5"] > 4 * found.loc[direction, "chance@5"]


def test_the_floor_matches_rows_by_the_rank_of_one_number():
    own = table("a", "Q", 1)
    own.obs["sw_darkness"] = np.log(np.asarray(own.X.sum(axis=1)).ravel() + np.arange(60) / 1000)
    found: Any = floor([own]).set_index(["direction", "candidates"]).loc[("image → gene", "section")]
    ranks = [pd.Series(own.X.sum(axis=1)).rank(), own.obs["sw_darkness"].rank()]
    assert np.corrcoef(*ranks)[0, 1] > 0.99
    assert found["recall@5"] > 0.9
    own.obs["sw_darkness"] = np.random.default_rng(0).permutation(60)
    assert floor([own])["recall@5"].max() < 0.35


def test_similarity_on_the_arc_falls_with_the_difference_of_ranks():
    arc = on_arc(np.array([5.0, -1.0, 80.0, np.nan, 6.0]))
    np.testing.assert_allclose(np.linalg.norm(arc[[0, 1, 2, 4]], axis=1), 1.0)
    assert np.isnan(arc[3]).all()
    similarity = arc[[1, 0, 4, 2]] @ arc[1]
    assert (np.diff(similarity) < 0).all()


def test_the_table_averages_folds_and_shows_chance_once():
    def row(fold: str, preset: str, direction: str, value: float) -> dict[str, object]:
        out = {
            "fold": fold,
            "preset": preset,
            "image": "i",
            "gene": "g",
            "direction": direction,
            "candidates": "section",
        }
        return out | {f"{what}@{k}": value * k for what in ("recall", "chance") for k in (1, 5, 10)}

    rows = [
        row(fold, preset, direction, value / 100)
        for preset in ("one", "two")
        for direction in ("image → gene", "gene → image")
        for fold, value in (("A", 1), ("B", 3))
    ]
    table = summary(pd.DataFrame(rows))
    assert list(table.index) == ["one, i, g", "two, i, g", "chance"]
    assert table.loc["two, i, g", "R@5 gene → image"] == "0.100"
    assert table.loc["chance", "R@10 image → gene"] == "0.200"


@pytest.mark.slow
def test_the_command_measures_a_folder_of_hest(hest, tmp_path, corner_colour):
    arguments = [
        "retrieval",
        "--data",
        str(hest),
        "--out",
        str(tmp_path),
        "--encoders",
        corner_colour,
        "stain_texture",
    ]
    main([*arguments, "--presets", "bleep", "whisperer", "--smoke"])
    rows = pd.read_csv(tmp_path / "retrieval.csv", keep_default_na=False)
    assert set(rows["preset"]) == {"bleep", "whisperer", "darkness and total count"}
    assert set(rows["gene"]) == {"identity", "auto", ""}
    assert rows["fold"].nunique() == 1
    assert (
        (tmp_path / "retrieval.md")
        .read_text()
        .startswith("### Patients left out\n\n3 sections of 3 patients, 270 rows")
    )
    with pytest.raises(ValueError, match="--seeds must be at least 1"):
        main([*arguments, "--seeds", "0"])
