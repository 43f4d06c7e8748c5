"""Distances from the training tissue, and the limits that left-out training tissue sets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spatialwhisperer.models.reference import Reference, ReferenceConfig
from spatialwhisperer.models.training_range import (
    FAR,
    QUANTILES,
    image_scale,
    nearest,
    row_limit,
    section_limit,
    unseen_distances,
)

if TYPE_CHECKING:
    from pathlib import Path

D = 60


def tissue(shift: float, n: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """Rows of a section whose features all lie ``shift`` standard deviations from zero."""
    return np.random.default_rng(seed).normal(shift, scale, (n, D))


def reference(parts: dict[str, np.ndarray]) -> Reference:
    """As training makes it; the first letter of a name is the patient."""
    mean = np.stack([p.mean(axis=0) for p in parts.values()]).astype(np.float32)
    std = np.stack([p.std(axis=0) for p in parts.values()]).astype(np.float32)
    kind, row, section = unseen_distances([*parts.values()], [n[0] for n in parts], mean, std)
    config = ReferenceConfig(sections=tuple(parts), unseen=kind)
    arrays = {"feature_mean": mean, "feature_std": std, "unseen_row": row, "unseen_section": section}
    return Reference(config, arrays)


@pytest.fixture(scope="module")
def two_patients() -> Reference:
    return reference({"A1": tissue(0.0, 300, 0), "B1": tissue(0.5, 300, 1), "B2": tissue(0.6, 100, 2)})


def test_the_distance_is_a_root_mean_square_in_standard_deviations_cut_off_at_ten() -> None:
    centres, sd = np.array([[0.0, 0.0], [4.0, 4.0]]), np.array([1.0, 2.0])
    points = np.array([[3.0, 4.0], [4.0, 6.0], [1000.0, 4.0]])
    expected = [np.sqrt(1 / 2), np.sqrt(1 / 2), np.sqrt(100 / 2)]
    np.testing.assert_allclose(nearest(points, centres, sd), expected)


def test_many_rows_are_as_far_as_one_at_a_time() -> None:
    points, centres, sd = tissue(1.0, 1300, 0), tissue(0.0, 3, 1), np.ones(D)
    np.testing.assert_array_equal(
        nearest(points, centres, sd)[[0, 700, 1299]],
        [nearest(points[i : i + 1], centres, sd)[0] for i in (0, 700, 1299)],
    )


def test_a_constant_feature_counts_by_its_own_unit() -> None:
    mean, std = np.array([[1.0, 5.0]], np.float32), np.array([[2.0, 0.0]], np.float32)
    np.testing.assert_array_equal(image_scale(mean, std)[1], [2.0, 1.0])


def test_patients_are_compared_with_the_sections_of_other_patients(two_patients: Reference) -> None:
    assert two_patients.config.unseen == "groups"
    # half a standard deviation apart; the nearer section counts for A1, and there is only one for B1 and B2
    np.testing.assert_allclose(two_patients.arrays["unseen_section"], [0.5, 0.5, 0.6], atol=0.05)
    middle = two_patients.arrays["unseen_row"][len(QUANTILES) // 2]
    assert middle == pytest.approx(np.sqrt(1 + 0.5**2), abs=0.03)


def test_each_patient_has_the_same_weight() -> None:
    few, many = tissue(0.0, 50, 0), tissue(3.0, 950, 1, scale=2.0)
    row = reference({"A1": few, "B1": many}).arrays["unseen_row"]
    # B lies 3 of A's standard deviations away, with a standard deviation of 2; A lies 3 of B's units of 2 away
    far, near = np.sqrt(9 + 4), np.sqrt(9 + 1) / 2
    assert row[len(QUANTILES) // 4] == pytest.approx(near, abs=0.15)
    assert row[3 * len(QUANTILES) // 4] == pytest.approx(far, abs=0.15)


@pytest.mark.parametrize(("names", "kind"), [(("A1", "A2"), "sections"), (("A1",), "rows")])
def test_one_patient_does_not_tell_how_patients_differ(names: tuple[str, ...], kind: str) -> None:
    one = reference({name: tissue(0.0, 400, i) for i, name in enumerate(names)})
    assert one.config.unseen == kind
    assert one.image_limit() == FAR
    quantile = float(np.interp(0.975, QUANTILES, one.arrays["unseen_row"]))
    assert one.row_limit() == pytest.approx(1.25 * quantile)
    assert quantile == pytest.approx(1.18, abs=0.03)


def test_limits_follow_from_what_was_left_out() -> None:
    assert row_limit(np.linspace(0, 4, 401), patients=True) == pytest.approx(3.9)
    assert row_limit(np.linspace(0, 4, 401), patients=False) == pytest.approx(1.25 * 3.9)
    assert section_limit(np.array([0.2, 0.8])) == pytest.approx(1.2)
    assert section_limit(np.array([0.2, 0.3])) == 1


def test_a_new_patient_is_in_range_and_a_shifted_domain_is_not(two_patients: Reference) -> None:
    limit = two_patients.row_limit()
    assert limit is not None
    known, shifted = tissue(0.3, 500, 5), tissue(2.0, 500, 6)
    assert (two_patients.row_distance(known) > limit).mean() <= 0.05
    assert two_patients.image_distance(known) < two_patients.image_limit()
    assert (two_patients.row_distance(shifted) > limit).mean() >= 0.9
    assert two_patients.image_distance(shifted) > two_patients.image_limit()


def test_rows_without_a_tile_have_no_distance(two_patients: Reference) -> None:
    x = tissue(0.0, 3, 0)
    x[1, 4] = np.nan
    distance = two_patients.row_distance(x)
    assert distance.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(distance), [False, True, False])
    with pytest.raises(ValueError, match="rows of 60 values; found shape"):
        two_patients.row_distance(x[:, :5])


def test_it_survives_storage_and_an_older_reference_has_none(two_patients: Reference, tmp_path: Path) -> None:
    from spatialwhisperer._artifact.artifact import Artifact

    two_patients.artifact().write(tmp_path / "new")
    back = Reference.from_artifact(Artifact.read(tmp_path / "new", "reference"))
    assert back.config == two_patients.config
    assert back.row_limit() == two_patients.row_limit()
    assert back.image_limit() == two_patients.image_limit()
    plain: Any = dict(two_patients.artifact().config)
    for key in ("unseen", "trained_sections"):
        plain.pop(key)
    arrays = {k: v for k, v in two_patients.arrays.items() if k.startswith("feature")}
    old = Reference.from_artifact(Artifact("reference", plain, arrays))
    assert old.row_limit() is None
    assert old.image_limit() == FAR


def test_what_was_left_out_needs_its_distances(two_patients: Reference) -> None:
    arrays = {k: v for k, v in two_patients.arrays.items() if k != "unseen_row"}
    with pytest.raises(
        ValueError, match="needs feature_mean, unseen_row, unseen_section; found feature_mean, unseen_section"
    ):
        Reference(two_patients.config, arrays)
    assert Reference(replace(two_patients.config, unseen=None), arrays).row_limit() is None
