"""Readouts in closed form: recursive least squares is ridge regression, whatever the parts it was given."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from neuropil.errors import ConfigError
from neuropil.spiking import RidgeReadout, RLSReadout

PARTS = [("estimator", RidgeReadout), ("estimator", RLSReadout)]


@pytest.fixture
def samples() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(3, 1, (60, 7)) * np.linspace(0.1, 10, 7)
    return x, x @ rng.normal(size=(7, 2)) + rng.normal(size=(60, 2))


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 100.0])
def test_ridge_is_scikit_learns(samples, alpha: float, intercept: bool) -> None:
    x, y = samples
    theirs = Ridge(alpha=alpha, fit_intercept=intercept).fit(x, y)
    ours = RidgeReadout(alpha, fit_intercept=intercept).fit(x, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-7)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-7)
    parts = RidgeReadout(alpha, fit_intercept=intercept)
    for rows in np.split(np.arange(60), [1, 2, 10, 45]):
        parts.partial_fit(x[rows], y[rows])
    np.testing.assert_allclose(parts.coef_, theirs.coef_, rtol=1e-7)


@pytest.mark.parametrize("intercept", [True, False])
def test_recursive_least_squares_equals_batch_ridge_after_every_sample(samples, intercept: bool) -> None:
    x, y = samples
    full = np.column_stack([x, np.ones(60)]) if intercept else x
    readout = RLSReadout(0.5, fit_intercept=intercept)
    for n in range(1, 61):
        readout.partial_fit(x[n - 1 : n], y[n - 1 : n])
        batch = np.linalg.solve(full[:n].T @ full[:n] + 0.5 * np.eye(full.shape[1]), full[:n].T @ y[:n])
        np.testing.assert_allclose(readout.weight_, batch, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(readout.predict(x), full @ batch, rtol=1e-6)


def test_forgetting_weighs_samples_by_their_age(samples) -> None:
    x, y = samples
    readout = RLSReadout(0.5, forgetting=0.9, fit_intercept=False).fit(x, y)
    weights = 0.9 ** np.arange(59, -1, -1)
    penalty = 0.5 * 0.9**60 * np.eye(7)
    expected = np.linalg.solve(x.T @ (weights[:, None] * x) + penalty, x.T @ (weights[:, None] * y))
    np.testing.assert_allclose(readout.weight_, expected, rtol=1e-6)


def test_settings_out_of_range_are_told() -> None:
    for bad in (RidgeReadout(-1.0), RLSReadout(0.0), RLSReadout(forgetting=1.5)):
        with pytest.raises(ConfigError, match="expected"):
            bad.fit([[0.0], [1.0]], [0.0, 1.0])
