from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols.her2st.floors import ceiling_rows, ridge

SPACE = "per_spot_log1p"
GENES = [f"G{i}" for i in range(60)]


def section(name: str, seed: int, depth: float = 1.0) -> Any:
    """Spots whose image features are the logarithms of the rates of the first two genes; the others are noise, or constant rates."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(150, 2))
    rates = np.full((150, 60), 20.0)
    rates[:, :2] = np.exp(3 + 0.8 * features)
    obs = pd.DataFrame({"section": name, "patient": name[0]}, index=[f"{name}{i}" for i in range(150)])
    table = ad.AnnData(rng.poisson(depth * rates).astype(np.float32), obs=obs, var=pd.DataFrame(index=GENES))
    table.obsm["X"] = features.astype(np.float32)
    table.obsm["spatial"] = rng.uniform(0, 100, (150, 2))
    return table


def test_a_plain_ridge_finds_genes_that_follow_the_image() -> None:
    train, test = [section("A1", 0), section("B1", 1)], section("C1", 2)
    predicted: Any = ridge(train, test, GENES, "X", SPACE)
    assert list(predicted.var_names) == GENES
    r = [np.corrcoef(predicted.X[:, i], np.log(test.X[:, i] + 1))[0, 1] for i in (0, 1)]
    assert min(r) > 0.8


def test_the_ceiling_of_known_rates_is_their_correlation_with_the_counts() -> None:
    train, test = [section("A1", 0)], section("C1", 2, depth=0.1)
    rows = ceiling_rows(test, GENES, train, SPACE).set_index("gene_list")["value"]
    assert set(rows.index) == {"ACG", "HEG50", "HVG50"}
    of_two = ceiling_rows(test, GENES[:2], [t[:, GENES].copy() for t in train], SPACE).set_index("gene_list")["value"]
    rates = np.exp(3 + 0.8 * np.asarray(test.obsm["X"]))
    library = np.asarray(test.X.sum(axis=1)).ravel()
    values = np.log1p(test.X[:, :2] / library[:, None] * np.median(library))
    true = np.log1p(rates / (rates.sum(axis=1) + 58 * 20.0)[:, None] * np.median(library))
    known = np.mean([np.corrcoef(values[:, i], true[:, i])[0, 1] for i in (0, 1)])
    assert of_two["ACG"] == pytest.approx(known, abs=0.08)
    assert rows["ACG"] < 0.3
