"""Features of the windows of a tile, worked out by hand for a few nuclei."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spatialwhisperer.encoders.image._nuclei import windows
from spatialwhisperer.encoders.image._nuclei.table import MEASURES, Nuclei

EDGE, MPP = 301, 1.0
MIDDLE = (EDGE - 1) / 2
OFF = [0.0, 10.0, 20.0, 49.0, 50.0, 76.9, 149.0]
"""How far the nuclei lie from the centre, in microns: four in the first window, six in the second, all in the third."""


class Words:
    """Two words; how much a nucleus resembles the first is its measure of h."""

    centre = np.zeros(len(MEASURES))

    def resemblance(self, measures: np.ndarray) -> np.ndarray:
        h = measures[:, MEASURES.index("h")]
        return np.column_stack([h, 1 - h])


def nuclei(n: int = len(OFF)) -> Nuclei:
    places = np.column_stack([MIDDLE + np.array(OFF), np.full(len(OFF), MIDDLE), 10.0 + np.arange(len(OFF))])
    measures = np.zeros((len(OFF), len(MEASURES)), np.float32)
    measures[:, MEASURES.index("h")] = np.arange(len(OFF)) / 10
    measures[:, MEASURES.index("contrast")] = np.arange(len(OFF))
    measures[:, MEASURES.index("log_area")] = np.log([10, 21, 30, 49, 51, 30, 30])
    measures[:, MEASURES.index("axis_ratio")] = [1, 0.66, 0.64, 0.7, 1, 1, 1]
    return Nuclei(places[:n], measures[:n])


def described(n: int = len(OFF), mpp: float = MPP) -> dict[str, float]:
    words: Any = Words()
    return dict(zip(windows.names(2), windows.describe(nuclei(n), words, EDGE, mpp).tolist(), strict=True))


def test_features_of_each_window_are_those_of_the_nuclei_in_it() -> None:
    found = described()
    for um, n in ((100, 4), (154, 6), (300, 7)):
        h, mm2 = np.arange(n) / 10, (um / 1000) ** 2
        area = np.array([10, 21, 30, 49, 51, 30, 30])[:n]
        lymphocytes = [0, 1, 0, 1, 0, 1, 1][:n]
        expected = {
            "log_nuclei_per_mm2": np.log1p(n / mm2),
            "log_median_area_um2": np.median(np.log(area)),
            "lymphocyte_like_fraction": np.mean(lymphocytes),
            "nuclear_area_fraction": (10.0 + np.arange(n)).sum() / um**2,
            "mean_h": h.mean(),
            "mean_contrast": np.arange(n).mean(),
            "word0_density": np.sqrt(h.sum() / mm2),
            "word1_density": np.sqrt((1 - h).sum() / mm2),
            "word0_fraction": h.mean(),
            "word1_fraction": 1 - h.mean(),
        }
        for name, value in expected.items():
            assert found[f"{name}_{um}um"] == pytest.approx(value, rel=1e-5), (name, um)


def test_two_nuclei_tell_counts_and_areas_alone() -> None:
    found = {name: value for name, value in described(2).items() if name.endswith("_100um")}
    told = {name.removesuffix("_100um") for name, value in found.items() if not np.isnan(value)}
    assert told == {"log_nuclei_per_mm2", "nuclear_area_fraction", "word0_density", "word1_density"}
    assert not any(np.isnan(value) for value in described(3).values())


def test_distances_are_in_microns_and_along_the_farther_axis() -> None:
    assert windows.from_centre(nuclei(), EDGE).tolist() == pytest.approx(OFF)
    turned = nuclei()._replace(places=nuclei().places[:, [1, 0, 2]])
    assert windows.from_centre(turned, EDGE).tolist() == pytest.approx(OFF)
    # half as long pixels bring all but the last nucleus into the first window
    assert described(mpp=0.5)["log_nuclei_per_mm2_100um"] == pytest.approx(np.log1p(6 / 0.01))
    assert described(mpp=0.5)["nuclear_area_fraction_100um"] == pytest.approx(sum(range(10, 16)) * 0.25 / 1e4)


def test_names_come_in_the_order_of_the_values() -> None:
    names = windows.names(1)
    assert names[:4] == [
        "log_nuclei_per_mm2_100um",
        "log_median_area_um2_100um",
        "lymphocyte_like_fraction_100um",
        "nuclear_area_fraction_100um",
    ]
    assert names[4:15] == [f"mean_{m}_100um" for m in MEASURES[3:14]]
    assert names[15:18] == ["word0_density_100um", "word0_fraction_100um", "log_nuclei_per_mm2_154um"]
