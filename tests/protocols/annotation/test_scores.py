from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols.annotation.scores import aurocs, near_truth


def test_unknown_spots_do_not_count() -> None:
    truth = pd.DataFrame({"a": pd.array([True, False, pd.NA, True], dtype="boolean")})
    scores = pd.DataFrame({"a": [2.0, 1.0, 9.0, np.nan]})
    assert aurocs(scores, truth)["auroc"].tolist() == [1.0]


def test_a_class_that_is_not_scored_is_left_out() -> None:
    truth = pd.DataFrame({name: pd.array([True, False], dtype="boolean") for name in "ab"})
    assert aurocs(pd.DataFrame({"b": [1.0, 0.0]}), truth)["class"].tolist() == ["b"]


def test_no_scores_are_refused() -> None:
    with pytest.raises(TypeError, match="inplace=False"):
        aurocs(None, pd.DataFrame())


def test_regions_are_scored_where_their_labels_are_near() -> None:
    present = np.arange(40) % 2 == 0
    truth = pd.DataFrame({name: pd.array(present, dtype="boolean") for name in ("tumour", "adipose", "T-cells")})
    truth.loc[:25, "adipose"] = pd.NA
    distance = np.where(np.arange(40) < 30, 0.0, 80.0)
    distance[3] = np.nan
    test = ad.AnnData(
        np.zeros((40, 0)), obs=pd.DataFrame({"pathologist_transfer_um": distance}, index=list(map(str, range(40))))
    )
    near = near_truth(truth, test)
    # of adipose tissue four spots are left, and cell types have no such labels
    assert list(near) == ["tumour"]
    assert near["tumour"].isna().sum() == 11
    assert truth["tumour"].notna().all()
