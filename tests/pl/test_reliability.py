from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.pl.reliability import reliability
from spatialwhisperer.tl.evaluation.calibration import evaluate_calibration

if TYPE_CHECKING:
    import anndata as ad


def test_bars_show_accuracy_and_gap(made: ad.AnnData) -> None:
    bins = evaluate_calibration(made, "truth")
    top: Any
    below: Any
    top, below = reliability(made, "truth")
    assert top.get_title(loc="left") == f"ECE {bins.attrs['ece']:.3f}"
    filled = bins[bins["n"] > 0]
    n = len(filled)
    assert np.allclose([b.get_height() for b in top.patches[:n]], filled["accuracy"])
    tops = [b.get_y() + b.get_height() for b in top.patches[n:]]
    assert np.allclose(tops, filled["confidence"])
    assert [b.get_height() for b in below.patches] == filled["n"].tolist()
    again = reliability(bins)
    assert again[0].get_title(loc="left") == top.get_title(loc="left")


def test_reliability_in_own_axes(made: ad.AnnData) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2)
    assert reliability(made, "truth", n_bins=5, axes=axes) == list(axes)
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(ValueError, match="2 axes are needed; 1 were given"):
        reliability(made, "truth", axes=axes[0])


def test_reliability_refuses(made: ad.AnnData) -> None:
    with pytest.raises(TypeError, match="truth is needed"):
        reliability(made)
    with pytest.raises(ValueError, match="not a result of sw.tl.evaluate_calibration"):
        reliability(pd.DataFrame({"a": [1]}))
