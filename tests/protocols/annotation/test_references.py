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


def spots(seed: int, sign: float) -> ad.AnnData:
    """Spots of a section: cancer is dark (or pale), and an image feature tells it exactly."""
    rng = np.random.default_rng(seed)
    cancer = np.arange(48) // 6 % 2 == 0
    obs = pd.DataFrame(
        {
            "pathologist_label": np.where(cancer, "invasive cancer", "connective tissue"),
            "sw_darkness": sign * cancer + 0.2 * rng.normal(size=48),
        },
        index=[f"s{i}" for i in range(48)],
    )
    xy = np.stack(np.divmod(np.arange(48), 6), axis=1).astype(float)
    features = np.stack([cancer + 0.1 * rng.normal(size=48), rng.normal(size=48)], axis=1)
    arrays: Any = {"spatial": xy, "image": features.astype(np.float32), "deconv_major": rng.random((48, 8))}
    table = ad.AnnData(np.zeros((48, 0)), obs=obs, obsm=arrays)
    table.uns["deconv_major"] = {"classes": list(captions.CELLS)}
    return table


def test_darkness_has_the_sign_of_the_training_sections() -> None:
    test = spots(9, 1.0)
    scores = references.darkness([spots(0, -1.0), spots(1, -1.0)], test)
    assert np.allclose(scores["tumour"], -test.obs["sw_darkness"])
    assert np.allclose(scores["connective"], test.obs["sw_darkness"])


def test_the_probe_of_the_own_section_is_held_out_by_blocks() -> None:
    test = spots(0, 1.0)
    scores = references.own_probe(test, "image")
    cancer = (test.obs["pathologist_label"] == "invasive cancer").to_numpy()
    assert np.corrcoef(scores["tumour"], cancer)[0, 1] > 0.8
    # cell types are random, and a probe that had seen the spot would rank them
    from sklearn.metrics import roc_auc_score

    truth = captions.targets(test)
    own = [roc_auc_score(truth[name].astype(bool), scores[name]) for name in captions.CELLS]
    assert np.mean(own) < 0.62
