"""Labels that a gene encoder learns from."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from spatialwhisperer.pp.genes import fit_gene_encoder


def table(seed: int = 0) -> Any:
    return ad.AnnData(np.random.default_rng(seed).poisson(2.0, (40, 20)).astype(np.float32))


def fitted(data: Any) -> Any:
    return fit_gene_encoder(data, "scanvi", labels_key="label", n_latent=3, max_epochs=1, device="cpu")


def test_a_label_is_known_whatever_the_type_of_its_number() -> None:
    whole, text, missing = table(0), table(1), table(2)
    values = np.arange(40) % 2
    whole.obs["label"] = values
    text.obs["label"] = pd.Categorical(values.astype(str))
    missing.obs["label"] = np.where(np.arange(40) < 4, np.nan, values)
    assert fitted([whole, text, missing]).fitted["labels"] == 2


def test_a_fit_on_other_intervals_is_another_fit() -> None:
    adata, other = table(), table()
    value = np.random.default_rng(0).normal(size=40)
    adata.obs["label"] = pd.cut(value, [-9, -0.5, 0.5, 9])
    other.obs["label"] = pd.cut(value[::-1], [-9, -0.5, 0.5, 9])
    assert fitted(adata).identity != fitted(other).identity
