from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spatialwhisperer.protocols.benchmarks.regressions import Reduction, fit_by_patient, fit_fixed


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 40))
    x, new = (rng.normal(size=(n, 6)) @ mixing + rng.normal(0, 0.1, (n, 40)) + 5 for n in (300, 50))
    y = x[:, :3] @ rng.normal(size=(3, 4)) + rng.normal(size=(300, 4)) + 2
    return x, y, new


def test_components_are_those_of_standardised_features(data):
    x, _, new = data
    reduction = Reduction.fit(x, 10)
    reference = make_pipeline(StandardScaler(), PCA(10, svd_solver="full")).fit(x)
    np.testing.assert_allclose(np.abs(reduction.apply(new)), np.abs(reference.transform(new)), atol=1e-5)
    assert Reduction.fit(x).axes.shape == (40, 40)
    assert Reduction.fit(x[:12]).axes.shape == (40, 11)
    gap = new.copy()
    gap[3, 0] = np.nan
    assert np.isnan(reduction.apply(gap)).all(axis=1).tolist() == [i == 3 for i in range(50)]


def test_the_fixed_penalty_is_that_of_the_published_recipe(data):
    x, y, new = data
    reduction = Reduction.fit(x, 10)
    z, z_new = reduction.apply(x), reduction.apply(new)
    reference = Ridge(alpha=100 / (10 * 4), fit_intercept=False, solver="lsqr", tol=1e-12, max_iter=10_000).fit(z, y)
    np.testing.assert_allclose(fit_fixed(z, y, 4)(z_new), reference.predict(z_new), rtol=1e-6)


def test_the_chosen_penalty_ignores_what_holds_for_one_patient_only():
    """A feature that is followed in another way in every patient: a small penalty fits it, and left-out patients refuse it."""
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(6), 60)
    own = rng.normal(size=(360, 30))
    slope = rng.normal(0, 1.0, (6, 30))
    y = (own * slope[patient]).sum(axis=1, keepdims=True)
    chosen = fit_by_patient(own, y, patient)
    rows = fit_by_patient(own, y, np.arange(360) % 6)
    new, slope_new = rng.normal(size=(500, 30)), rng.normal(0, 1.0, 30)
    truth = new @ slope_new
    assert np.mean((chosen(new)[:, 0] - truth) ** 2) < np.mean((rows(new)[:, 0] - truth) ** 2)
    assert np.ptp(chosen(new)) < 0.2 * np.ptp(rows(new))
    shifted = fit_by_patient(own, y + 100, patient)
    np.testing.assert_allclose(shifted(new), chosen(new) + 100, atol=1e-6)
