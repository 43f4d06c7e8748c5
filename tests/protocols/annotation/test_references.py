from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.annotation import references

if TYPE_CHECKING:
    import pytest

TEXTS = {name: captions.TARGETS[name] for name in ("tumour", "adipose", "immune")}


def section(seed: int, unit: float) -> ad.AnnData:
    """Spots of three regions that image and gene features tell apart; gene features are numbers of ``unit``."""
    rng = np.random.default_rng(seed)
    region = np.arange(30) % 3
    features = np.eye(3)[region] + 0.3 * rng.normal(size=(30, 3))
    obs = pd.DataFrame({"patient": f"p{seed}", "caption_region": [list(TEXTS.values())[r][0] for r in region]})
    genes = unit * (features + 0.1 * rng.normal(size=(30, 3)) + 2)
    arrays: Any = {"image": features.astype(np.float32), "genes": genes, "spatial": rng.random((30, 2)) * 100}
    return ad.AnnData(obs=obs.set_index(obs.index.astype(str)), obsm=arrays)


def test_scores_through_expression_do_not_depend_on_the_unit_of_gene_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "TARGETS", TEXTS)
    monkeypatch.setattr(references, "_genes", lambda table, _: table.obsm["genes"].astype(np.float32))
    encoder: Any = None
    scores = []
    for unit in (1.0, 20.0):
        train = [section(seed, unit) for seed in range(3)]
        scores.append(references.two_stage(train, section(9, unit), train, encoder, "image"))
    assert list(scores[0]) == list(TEXTS)
    np.testing.assert_allclose(scores[1], scores[0], atol=0.01)
    assert (scores[0].to_numpy().argmax(axis=1) == np.arange(30) % 3).mean() > 0.8
