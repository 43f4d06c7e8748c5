"""The section of the report on the training tissue: the numbers of `tissue_range`, and which of them refused a slide."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer.cli.reporting.tissue import compared, tissue_section
from tests.cli.test_report import Page

if TYPE_CHECKING:
    from tests.cli.conftest import Folder

TYPED: Any = Namespace(key_added="sw_label", batch_size=None, device=None)


def report(**values: Any) -> pd.DataFrame:
    """As `tissue_range` gives it, for one section."""
    usual = {
        "n_rows": 50,
        "n_tissue": 40,
        "out_of_range": 0.25,
        "distance": 1.0,
        "limit": 1.5,
        "mean_distance": 1.0,
        "image_distance": 0.5,
        "verdict": "in range",
        "trained_on": False,
    }
    found = pd.DataFrame([usual | values], index=pd.Index(["<b>"], name="section"))
    found.attrs["row_limit"] = 2.25
    return found


def words(found: pd.DataFrame | str, *, labelled_anyway: bool = False) -> Page:
    return Page(tissue_section(found, labelled_anyway=labelled_anyway))


def test_distances_stand_beside_their_limits() -> None:
    page = words(report())
    assert "<b> 40 of 50 1.00 0.50 1.50 25 % in range" in page.text
    assert "own distance is above 2.25" in page.text
    assert not page.all("strong")


@pytest.mark.parametrize(
    ("values", "verdict", "bold"),
    [
        ({"mean_distance": 3.0}, "out of range by its rows", 1),
        ({"image_distance": 3.0}, "out of range by its image", 1),
        ({"mean_distance": 3.0, "image_distance": 3.0}, "out of range by its rows and its image", 2),
        ({"mean_distance": 3.0, "image_distance": np.nan}, "out of range by its rows", 1),
    ],
)
def test_the_distance_that_refused_a_section_is_named(values: dict[str, float], verdict: str, bold: int) -> None:
    page = words(report(verdict="out of range", **values))
    assert page.text.endswith(f"% {verdict} Rows out of range: " + page.text.rpartition("Rows out of range: ")[2])
    assert len(page.all("strong")) == bold


def test_a_section_without_a_verdict_or_of_the_training_says_so() -> None:
    none = {"mean_distance": np.nan, "limit": np.nan, "image_distance": np.nan, "out_of_range": np.nan}
    page = words(report(verdict="too few rows", trained_on=True, n_tissue=0, **none))
    assert (
        "0 of 50 – – – – too few rows on tissue for a verdict on the section; the model was trained on it" in page.text
    )


def test_rows_that_are_labelled_all_the_same_are_said() -> None:
    assert "gets no label at all" in words(report()).text
    assert "--unknown label was passed" in words(report(), labelled_anyway=True).text
    assert tissue_section(None, labelled_anyway=False) == ""


def test_a_report_of_a_slide_has_the_numbers_of_the_package(annotated: Folder) -> None:
    from spatialdata import SpatialData

    sdata = SpatialData.read(annotated.results / "plain.zarr")
    row = sw.tl.tissue_range(sdata).iloc[0]
    assert row["verdict"] == "out of range"
    page = Page((annotated.results / "plain.html").read_text(encoding="utf-8"))
    numbers = [f"{row[name]:.2f}" for name in ("mean_distance", "image_distance", "limit")]
    assert f"{row['n_tissue']} of {row['n_rows']} {' '.join(numbers)}" in page.text
    assert "out of range by its" in page.text


def test_no_feature_is_computed_again(annotated: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialdata import SpatialData

    from spatialwhisperer.pp.features import images

    def computed(*_: object, **__: object) -> None:
        raise AssertionError("features were computed")

    sdata = SpatialData.read(annotated.results / "plain.zarr")
    monkeypatch.setattr(images, "compute_image_features", computed)
    found = compared(sdata, sw.models.default_model(), TYPED, {})
    assert isinstance(found, pd.DataFrame)
    # labels from an embedding are not compared
    sw.tl.zero_shot_annotate(sdata, embedding_key="X_sw_image", min_confidence=0)
    said = compared(sdata, sw.models.default_model(), TYPED, {})
    assert isinstance(said, str)
    assert "was not compared with the training tissue" in words(said).text
