"""The check of a scale against the spots."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spatialwhisperer._access.sections.lattice import lattice_of, scale_differs
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tiles.plan import plan_tiles
from spatialwhisperer._messages import SpatialWhispererWarning

if TYPE_CHECKING:
    from pathlib import Path


def spots(kind: str, pitch: float = 1.0, n: int = 14, noise: float = 0.0, keep: float = 0.8) -> np.ndarray:
    row, col = (i.ravel().astype(float) for i in np.mgrid[:n, :n])
    xy = np.column_stack([col, row]) if kind == "square" else np.column_stack([col + (row % 2) / 2, row * 0.75**0.5])
    rng = np.random.default_rng(0)
    xy = xy[rng.uniform(size=len(xy)) < keep]
    a = np.deg2rad(17)
    turned = xy @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    return pitch * (turned + rng.normal(0, noise, xy.shape)) + 40


@pytest.mark.parametrize("kind", ["square", "hexagonal"])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_a_lattice_is_known_by_its_form(kind: str, noise: float) -> None:
    found = lattice_of(spots(kind, 80.0, noise=noise))
    assert found is not None
    assert found.kind == kind
    assert found.pitch_px == pytest.approx(80, rel=0.03)


def test_cells_and_few_spots_lie_on_no_lattice() -> None:
    rng = np.random.default_rng(0)
    assert not any(lattice_of(rng.uniform(0, 1000, (n, 2))) for n in range(60, 900, 40))
    assert lattice_of(spots("square", n=6)) is None
    assert lattice_of(np.full((100, 2), np.nan)) is None
    # cells that keep apart from each other
    grid = spots("square", 10, noise=0.2)
    assert lattice_of(grid) is None


@pytest.mark.parametrize(("kind", "pitch_um"), [("hexagonal", 100), ("square", 200), ("square", 141.4)])
def test_a_wrong_scale_is_noticed_and_the_correct_one_is_not(kind: str, pitch_um: float) -> None:
    xy = spots(kind, pitch_um / 0.5)
    assert scale_differs(xy, 0.5) is None
    for factor in (0.25, 0.5, 2, 4):
        assert scale_differs(xy, 0.5 * factor) is not None, factor


def test_bins_and_large_square_arrays_are_not_judged() -> None:
    assert scale_differs(spots("square", 16 / 0.5), 0.5) is None
    assert scale_differs(spots("square", 50 / 0.5, n=60), 0.5) is None


def test_the_warning_names_the_numbers_once(build: Any) -> None:
    xy = spots("square", 20.0) + 100
    pixels = np.full((3, 500, 500), 200, np.uint8)
    with pytest.warns(
        SpatialWhispererWarning,
        match=r"With 5 µm per pixel \(by mpp=…\) .* are 100 µm apart.*200 or 141.*mpp would be 10 or 7\.071",
    ):
        plan_tiles(Slide.open(build.library(xy, pixels=pixels), mpp=5.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan_tiles(Slide.open(build.library(xy, pixels=pixels), mpp=10.0))


@pytest.mark.slow
def test_the_check_on_all_real_sections(data_folder: Path, tmp_path: Path) -> None:
    from spatialwhisperer.protocols import scale

    table = scale.run(data_folder, tmp_path)
    spotted = table.drop("xenium_lung_ncbi858")
    assert (table["x 1"] == 0).all()
    assert table.loc["xenium_lung_ncbi858"].drop("n").eq(0).all()
    assert all((spotted[f"x {factor}"] == spotted["n"]).all() for factor in ("0.25", "0.5", "2", "4"))
