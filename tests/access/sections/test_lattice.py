"""The check of a scale against the spots."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._access.sections.lattice import hexagonal_pitch_px, lattice_of, scale_differs, spot_pitch_px
from spatialwhisperer._access.sections.scale import Scale, settle
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


# ------------------------------------------------------------------------------------------------- array indices


def array(kind: str, n: int = 20) -> tuple[pd.DataFrame, np.ndarray]:
    """Array indices of n x n spots, and their centres in pixels, 80 apart, turned and mirrored."""
    row, col = (i.ravel() for i in np.mgrid[:n, :n])
    xy = np.column_stack([col, row]).astype(float)
    if kind == "hexagonal":
        col = 2 * col + row % 2
        xy = np.column_stack([col / 2, row * 0.75**0.5])
    a = np.deg2rad(17)
    obs = pd.DataFrame({"array_row": row, "array_col": col}, index=[f"s{i}" for i in range(n * n)])
    return obs, 80 * xy @ np.array([[np.cos(a), np.sin(a)], [np.sin(a), -np.cos(a)]]) + 3000


@pytest.mark.parametrize("kind", ["square", "hexagonal"])
@pytest.mark.parametrize("place", [-50.0, 1e6, 3000.0])
def test_a_few_misplaced_spots_change_no_pitch_and_are_named(kind: str, place: float) -> None:
    obs, xy = array(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert spot_pitch_px("S", xy, obs) == pytest.approx(80)
    for n in (1, 8):
        wrong = xy.copy()
        wrong[60 : 60 + n] = place
        with pytest.warns(SpatialWhispererWarning, match=rf"^{n} of 400 spots .* elsewhere than \.obs.*: 's60'"):
            assert spot_pitch_px("S", wrong, obs) == pytest.approx(80)
    # where many are misplaced, nobody knows which ones
    wrong = xy.copy()
    wrong[::5] = np.random.default_rng(0).permutation(xy[::5]) + 1e5
    assert hexagonal_pitch_px(obs, wrong) is None


def test_a_narrow_part_of_a_real_square_array_has_the_scale_of_all_its_spots(data_folder: Path) -> None:
    """Printed spots miss their places by about a twentieth of their pitch."""
    scales = {}
    for file in sorted((data_folder / "her2st").glob("*/counts.h5ad")):
        table = ad.read_h5ad(file, backed="r")
        obs: Any = table.obs[["array_col", "array_row"]]
        xy = np.asarray(table.obsm["spatial"], float)
        scales[file.parent.name] = [200 / spot_pitch_px("S", xy[:n], obs[:n]) for n in (len(xy), 40, 19)]
    assert scales
    for name, (of_all, *parts) in scales.items():
        assert parts == pytest.approx([of_all] * 2, rel=0.012), name


def test_both_arguments_of_the_caller_are_compared() -> None:
    obs, xy = array("square")
    nothing: dict[str, Any] = {"stated": None, "found": (), "array": obs}
    for places in (xy, xy[:2]):
        # what cannot be measured contradicts nothing
        assert settle("S", "he", mpp=2.5, spot_pitch_um=200, xy_px=places, **nothing) == Scale(2.5, "mpp=…")
    with pytest.raises(
        ValueError,
        match=r"'S' disagree: 0\.25 .* by mpp=…, 2\.5 by spot_pitch_um=200\. Leave out the argument .* wrong\.$",
    ):
        settle("S", "he", mpp={"S": 0.25}, spot_pitch_um=200, xy_px=xy, **nothing)


@pytest.mark.slow
def test_the_check_on_all_real_sections(data_folder: Path, tmp_path: Path) -> None:
    from spatialwhisperer.protocols import scale

    table = scale.run(data_folder, tmp_path)
    spotted = table.drop("xenium_lung_ncbi858")
    assert (table["x 1"] == 0).all()
    assert table.loc["xenium_lung_ncbi858"].drop("n").eq(0).all()
    assert all((spotted[f"x {factor}"] == spotted["n"]).all() for factor in ("0.25", "0.5", "2", "4"))
