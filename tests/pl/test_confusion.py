from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.pl.confusion import confusion


def test_rows_are_counted_by_known_and_given_class(adata: Any) -> None:
    names = ["a", "b", "c"]
    truth = np.array(names)[np.arange(120) % 3].astype(object)
    guess = truth.copy()
    guess[:6] = "b"
    guess[6:9] = None
    truth[119] = None
    adata.obs["truth"] = pd.Categorical(truth, categories=["c", "a", "b"])
    adata.obs["sw_class"] = pd.Categorical(guess, categories=names)
    ax = confusion(adata, labels_key="truth")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["c (39)", "a (40)", "b (40)"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["c", "a", "b", "no class"]
    fractions: Any = ax.images[0].get_array()
    assert np.allclose(fractions.sum(axis=1), 1)
    assert fractions[1].tolist() == pytest.approx([0, 37 / 40, 2 / 40, 1 / 40])
    counts: Any = confusion(adata, labels_key="truth", normalize=False, ignore=["a"]).images[0].get_array()
    assert counts.shape == (2, 4)
    assert counts.sum() == 79
    both: Any = confusion([adata, adata], labels_key="truth", normalize=False).images[0].get_array()
    assert both.sum() == 238
    with pytest.raises(KeyError, match=r"Run sw\.tl\.classify"):
        confusion(adata, labels_key="truth", key="nothing")
    with pytest.raises(ValueError, match="No row has a known class"):
        confusion(adata, labels_key="truth", ignore=names)


def test_ticks_have_names_and_no_strokes() -> None:
    adata = ad.AnnData(obs=pd.DataFrame({"truth": ["a", "b"], "sw_class": ["a", "a"]}, index=["r0", "r1"]))
    ax = confusion(adata, labels_key="truth")
    # every row has a class
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a"]
    assert {line.get_markersize() for line in [*ax.get_xticklines(), *ax.get_yticklines()]} == {0}


def test_whole_numbers_have_one_name_in_known_and_given_classes() -> None:
    obs = pd.DataFrame({"truth": [1, 2, np.nan], "sw_class": ["1", "2", "2"]}, index=["r0", "r1", "r2"])
    ax = confusion(ad.AnnData(obs=obs), labels_key="truth")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["1 (1)", "2 (1)"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2"]
