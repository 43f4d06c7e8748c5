"""Which weight of the regression is taken, from correlations within held-out sections."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spatialwhisperer.tl._training.expression.held_out import OWN, by_section, with_accuracy, with_own_accuracy
from spatialwhisperer.tl._training.expression.values import Values

SECTIONS = np.repeat(["s", "t"], 6)
RNG = np.random.default_rng(0)
TRUTH = RNG.poisson(3.0, (12, 4)).astype(float)
TRUTH[:, 3] = 2.0
TRUTH[6:, 2] = 1.0
ROWS = pd.DataFrame({"section": np.concatenate([SECTIONS, ["u"]])})


def values() -> Values:
    return Values(list("abcd"), list("abcd"), sp.csr_matrix(TRUTH), np.arange(12), "log1p")


class Predictor:
    """Takes what it is told."""

    config = SimpleNamespace(weight=0.3)

    def with_accuracy(self, accuracy: dict[str, np.ndarray], weight: float | None, *, own: bool = False) -> Any:
        return SimpleNamespace(accuracy=accuracy, weight=weight, own=own)


PREDICTOR: Any = Predictor()


def expected(predicted: np.ndarray) -> list[float]:
    """Mean over the sections where a gene varies, NaN where it varies in none."""
    out = []
    for gene in range(4):
        each = [
            np.corrcoef(TRUTH[s, gene], predicted[s, gene])[0, 1] if np.ptp(predicted[s, gene]) else 0.0
            for s in (slice(0, 6), slice(6, 12))
            if np.ptp(TRUTH[s, gene])
        ]
        out.append(np.mean(each) if each else np.nan)
    return out


def test_correlations_are_means_over_the_sections_where_a_gene_varies() -> None:
    predicted = TRUTH + RNG.normal(size=TRUTH.shape)
    predicted[:6, 1] = 5.0
    found = by_section(sp.csr_matrix(TRUTH), predicted, SECTIONS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(predicted), rtol=1e-5)
    assert np.isnan(found).tolist() == [False, False, False, True]


def test_the_largest_weight_among_the_best_is_taken() -> None:
    noise = RNG.normal(size=TRUTH.shape)
    for retrieval, regression, weight in [(TRUTH, TRUTH, 1.0), (TRUTH, -TRUTH, 0.4), (TRUTH + 5 * noise, TRUTH, 1.0)]:
        found: Any = with_accuracy(
            PREDICTOR, {"retrieval": retrieval, "regression": regression, OWN: TRUTH}, values(), np.ones(12, bool), ROWS
        )
        assert found.weight == pytest.approx(weight)
        assert list(found.accuracy) == ["retrieval", "regression", "both"]
        mixed = weight * regression + (1 - weight) * retrieval
        np.testing.assert_allclose(found.accuracy["both"], expected(mixed), rtol=1e-4)


def test_one_method_has_no_weight_and_rows_that_were_not_predicted_do_not_count() -> None:
    known = np.arange(12) != 11
    predicted = np.where(known[:, None], TRUTH, 1e6)
    found: Any = with_accuracy(PREDICTOR, {"retrieval": predicted}, values(), known, ROWS)
    assert found.weight is None
    np.testing.assert_allclose(found.accuracy["retrieval"][:3], 1, rtol=1e-6)


def test_the_regression_on_own_features_is_measured_where_it_predicts() -> None:
    own = np.where(SECTIONS[:, None] == "s", TRUTH, np.nan)
    found: Any = with_own_accuracy(PREDICTOR, {"retrieval": -TRUTH, OWN: own}, values(), ROWS)
    assert (found.own, found.weight, list(found.accuracy)) == (True, 1.0, ["regression", "both"])
    np.testing.assert_allclose(found.accuracy["regression"][:3], 1, rtol=1e-6)
    for nothing in ({"retrieval": TRUTH}, {"retrieval": TRUTH, OWN: np.full((12, 4), np.nan)}):
        none: Any = with_own_accuracy(PREDICTOR, nothing, values(), ROWS)
        assert (none.own, none.weight, none.accuracy) == (True, 0.3, {})
