from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from spatialwhisperer.models.training_range import LEAST_LOOK
from spatialwhisperer.protocols.annotation.guard import measure as guard
from spatialwhisperer.protocols.annotation.guard import tissue as guard_tissue
from spatialwhisperer.protocols.annotation.guard.figure import draw
from spatialwhisperer.protocols.annotation.guard.tissue import Tissue

if TYPE_CHECKING:
    from pathlib import Path

D = 2 * 158


def tissue(shift: float, n: int, seed: int) -> Tissue:
    """Rows on tissue, of an image that looks like them."""
    x = np.random.default_rng(seed).normal(shift, 1, (n, D)).astype(np.float32)
    from spatialwhisperer.models import image_encoder

    x[:, image_encoder("stain_texture").feature_names().index("tissue_fraction")] = 1  # type: ignore[attr-defined]
    return Tissue(x, (*np.full(158, shift).tolist(), *np.ones(158).tolist()))


@pytest.fixture(scope="module")
def known() -> dict[str, Tissue]:
    return {"A1": tissue(0.0, 200, 0), "C2": tissue(0.5, 150, 1), "C3": tissue(0.6, 150, 2)}


def test_known_tissue_keeps_its_labels_and_other_tissue_does_not(known: dict[str, Tissue], tmp_path: Path) -> None:
    others = {"near": {"n": tissue(0.3, 100, 3)}, "far": {"f": tissue(3.0, 100, 4), "few": tissue(3.0, 5, 5)}}
    table, distances = guard.measure(known, others)
    assert table["two patients"].astype(float)[guard.PATIENT] <= 0.1
    assert table.loc[guard.PATIENT, "rows"] == 500
    assert table["embedded model"].astype(float)[guard.SECTION] <= 0.05
    assert table["embedded model"].astype(float)["near"] <= 0.05
    far = table.loc["far"]
    assert far["AUROC, rows"] == far["AUROC, sections"] == far["embedded model"] == far["two patients"] == 1
    draw(distances, guard.reference_of(known), tmp_path / "guard.png")
    assert (tmp_path / "guard.png").stat().st_size > 5000


def test_an_image_that_looks_unlike_the_training_images_is_told_by_that_alone(known: dict[str, Tissue]) -> None:
    reference = guard.reference_of(known)
    near, far = known["C2"], Tissue(known["C2"].features, tuple(np.array(known["C2"].look) + 4))
    assert guard.judge(near, reference).abstain < 0.1
    assert guard.judge(far, reference).abstain == 1
    # images of one patient lie 0.5 to 0.6 from those of the other: the limit is the least one
    distance = reference.look_distance(tuple(np.full(158, 0.6 + 2 * LEAST_LOOK).tolist()) + (1.0,) * 158)
    assert distance == pytest.approx(2.0 * reference.image_limit())
    assert reference.look_distance(()) is None


def test_limits_between_patients_come_from_the_other_way_round(known: dict[str, Tissue]) -> None:
    fold = guard.reference_of({"A1": known["A1"]})
    crossed = guard.with_limits_without("C", known, fold)
    own = guard.reference_of({"C2": known["C2"], "C3": known["C3"]})
    assert crossed.row_limit() == pytest.approx(np.quantile(own.row_distance(known["A1"].features), 0.975), rel=1e-3)
    np.testing.assert_allclose(crossed.row_distance(known["C2"].features), fold.row_distance(known["C2"].features))


def test_changes_keep_the_shape_of_tiles() -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (2, 3, 48, 48), dtype=np.uint8)
    for name, change in guard_tissue.CHANGES.items():
        out = change(tiles, 2.0)
        assert (out.shape, out.dtype) == (tiles.shape, np.uint8), name
        assert not np.array_equal(out, tiles), name


def test_sets_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    assert guard_tissue.foreign(tmp_path) == {}


@pytest.mark.slow
def test_the_protocol_runs(data_folder: Path, tmp_path: Path) -> None:
    from spatialwhisperer.protocols.__main__ import main

    main(["guard", "--data", str(data_folder), "--out", str(tmp_path), "--smoke"])
    assert {p.name for p in tmp_path.iterdir()} == {"guard.csv", "guard.md", "guard.png"}
