"""Reservoirs as estimators: equal to their equations in numpy, right on tasks with known answers, learned in parts."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from neuropil.errors import ConfigError, LabelError, NonFiniteError, ShapeError
from neuropil.kernels.liquid import LiquidNeuron
from neuropil.spiking import (
    EchoState,
    EchoStateClassifier,
    LiquidState,
    LiquidStateClassifier,
    memory_capacity,
    spectral_radius,
)

rng = np.random.default_rng(0)
SERIES = rng.uniform(-0.5, 0.5, (12, 40, 2))
SPIKES = (rng.random((12, 60, 3)) < 0.15).astype(float)
LABELS = np.array(["a", "b"] * 6)


def echo():
    return EchoState(30, washout=3, random_state=0), {}, (SERIES, SERIES.cumsum(1))


def echo_mean():
    return EchoState(30, reading="mean", random_state=0), {}, (SERIES, SERIES.mean((1, 2)))


def echo_classes():
    return EchoStateClassifier(30, random_state=0), {}, (SERIES, np.arange(12) % 2)


def liquid():
    return LiquidState(40, random_state=0), {}, (SPIKES, SPIKES.mean((1, 2)))


def liquid_classes():
    return LiquidStateClassifier(40, reading="last", random_state=0), {}, (SPIKES, np.arange(12) % 2)


PARTS = [("estimator", make) for make in (echo, echo_mean, echo_classes, liquid, liquid_classes)]


def test_states_and_readout_follow_the_equations():
    model = EchoState(25, leak=0.3, washout=5, alpha=0.01, random_state=1).fit(SERIES, SERIES[..., 0])
    assert spectral_radius(model.connections_).radius == pytest.approx(0.9)
    states = np.zeros((12, 40, 25))
    x = np.zeros((12, 25))
    for t in range(40):
        drive = x @ model.connections_.T + SERIES[:, t] @ model.input_weight_.T + model.bias_
        x = 0.7 * x + 0.3 * np.tanh(drive)
        states[:, t] = x
    np.testing.assert_allclose(model.states(SERIES), states, rtol=1e-9, atol=1e-12)
    features = np.concatenate([states, SERIES, np.ones((12, 40, 1))], 2)
    seen = features[:, 5:].reshape(-1, 28)
    penalty = 0.01 * np.diag([1.0] * 27 + [0.0])
    weights = np.linalg.solve(seen.T @ seen + penalty, seen.T @ SERIES[:, 5:, 0].reshape(-1))
    np.testing.assert_allclose(model.predict(SERIES), features @ weights, rtol=1e-5, atol=1e-7)


def test_the_radius_of_many_units_is_found_without_all_eigenvalues():
    model = EchoState(300, spectral_radius=1.3, random_state=0).fit(SERIES, SERIES[..., 0])
    assert spectral_radius(model.connections_).radius == pytest.approx(1.3, rel=1e-6)


def test_parts_make_a_whole():
    whole = EchoState(30, washout=2, random_state=0).fit(SERIES, SERIES[..., 1])
    parts = EchoState(30, washout=2, random_state=0)
    for part in (slice(0, 5), slice(5, 12)):
        parts.partial_fit(SERIES[part], SERIES[part][..., 1])
    np.testing.assert_allclose(parts.predict(SERIES), whole.predict(SERIES), rtol=1e-6, atol=1e-8)
    classes = LiquidStateClassifier(30, random_state=0).partial_fit(
        SPIKES[:1], LABELS[:1], classes=["a", "b"]
    )
    classes.partial_fit(SPIKES[1:], LABELS[1:])
    one = LiquidStateClassifier(30, random_state=0).fit(SPIKES, LABELS)
    np.testing.assert_allclose(classes.decision_function(SPIKES), one.decision_function(SPIKES), atol=1e-8)
    with pytest.raises(LabelError, match="'c'"):
        classes.partial_fit(SPIKES[:1], ["c"])


def test_sequences_of_unequal_length_are_each_their_own():
    ragged = [row[: 20 + 3 * (place % 4)] for place, row in enumerate(SERIES)]
    model = EchoStateClassifier(30, washout=4, random_state=0).fit(ragged, LABELS)
    alone = np.concatenate([model.decision_function(row[None]) for row in ragged])
    np.testing.assert_allclose(model.decision_function(ragged), alone, atol=1e-8)
    with pytest.raises(ShapeError, match="one by one"):
        EchoState(5, random_state=0).fit(SERIES, SERIES[..., 0]).predict(ragged)


def test_a_sine_goes_on_by_itself():
    wave = np.sin(np.arange(700) * 0.2)[:, None]
    model = EchoState(100, spectral_radius=0.9, washout=100, alpha=1e-8, random_state=0)
    model.fit(wave[:499], wave[1:500])
    np.testing.assert_allclose(model.forecast(wave[:500], 100), wave[500:600], atol=0.05)
    with pytest.raises(ShapeError, match="gives 1 numbers"):
        EchoState(9, random_state=0).fit(SERIES, SERIES[..., 0]).forecast(SERIES[0], 3)


def test_narma_and_memory_are_where_echo_state_networks_are():
    u = np.random.default_rng(2).uniform(0, 0.5, 2600)
    y = np.zeros(2600)
    for t in range(10, 2599):
        y[t + 1] = 0.3 * y[t] + 0.05 * y[t] * y[t - 9 : t + 1].sum() + 1.5 * u[t - 9] * u[t] + 0.1
    x = (u[:, None] - 0.25) * 0.8
    model = EchoState(200, spectral_radius=0.95, washout=100, alpha=1e-6, random_state=0)
    model.fit(x[:1600], np.roll(y, -1)[:1600])
    assert model.score(x[1600:2590], np.roll(y, -1)[1600:2590]) > 0.9
    white = np.random.default_rng(3).uniform(-0.1, 0.1, (3000, 1))
    linear = EchoState(20, spectral_radius=0.95, bias_scale=0.0, input_scale=0.1, density=1.0, random_state=0)
    capacity = memory_capacity(linear.fit(white, white[:, 0]).states(white), white[:, 0], delays=40)
    assert 12 < capacity.total <= 20.2


def test_digits_read_row_by_row():
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8) / 16
    model = EchoStateClassifier(200, leak=0.5, reading="last", alpha=0.1, random_state=0).fit(
        x[:1200], y[:1200]
    )
    assert model.score(x[1200:], y[1200:]) > 0.85


def test_a_liquid_keeps_what_came_before():
    """Which of two patterns came first, told half a second later from the ripples alone."""
    noise = np.random.default_rng(5)
    templates = noise.random((2, 60, 8)) < 0.05
    labels = noise.integers(0, 2, 80)
    x = np.concatenate([templates[labels], noise.random((80, 30, 8)) < 0.02], axis=1)
    model = LiquidStateClassifier(150, reading="last", trace_time=50, random_state=0).fit(x[:60], labels[:60])
    assert model.score(x[60:], labels[60:]) > 0.9
    rates = model.spikes(x).mean() * 1000
    assert 1 < rates < 100, f"{rates} spikes a second"


def test_liquids_obey_dale_and_their_shares():
    model = LiquidState(200, inhibitory=0.25, density=0.2, random_state=0).fit(SPIKES, np.arange(12.0))
    columns = np.sign(model.connections_)
    assert (columns[:, :150] >= 0).all() and (columns[:, 150:] <= 0).all()
    assert (model.connections_ != 0).mean() == pytest.approx(0.2, abs=0.01)
    assert not model.connections_.diagonal().any()
    assert model.connections_[:, :150][model.connections_[:, :150] > 0].mean() == pytest.approx(1.5, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"input_weight": 0.0}, "is silent"),
        (
            {"input_weight": 5000.0, "input_density": 1.0, "neuron": LiquidNeuron(refractory=0.0)},
            "is saturated",
        ),
    ],
)
def test_a_liquid_that_says_nothing_warns_in_one_line(settings, said):
    with pytest.warns(UserWarning, match=said) as caught:
        LiquidState(20, random_state=0, **settings).fit(np.ones((3, 50, 2)), np.arange(3.0))
    assert all("\n" not in str(warning.message) for warning in caught)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LiquidState(40, random_state=0).fit(SPIKES, np.arange(12.0))


def test_settings_are_searched_as_any_estimators():
    search = GridSearchCV(EchoState(20, random_state=0), {"leak": [0.1, 1.0]}, cv=3)
    search.fit(SERIES, SERIES.cumsum(1)[..., 0])
    assert search.best_params_["leak"] in (0.1, 1.0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"leak": 0.0}, "EchoState.leak"),
        ({"density": 2.0}, "EchoState.density"),
        ({"spectral_radius": -1.0}, "EchoState.spectral_radius"),
        ({"units": 0}, "units"),
        ({"reading": "lasts"}, "did you mean 'last'"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, said):
    with pytest.raises(ConfigError, match=said) as caught:
        EchoState(**settings).fit(SERIES, SERIES)
    assert "\n" not in str(caught.value)


def test_arrays_that_do_not_fit_are_told():
    model = EchoState(10, random_state=0)
    with pytest.raises(ShapeError, match="needs"):
        model.fit(SERIES, SERIES[:, :5, 0])
    model.fit(SERIES, SERIES)
    with pytest.raises(ShapeError, match="expected 2 as in fit"):
        model.predict(SERIES[..., :1])
    with pytest.raises(NonFiniteError, match="NaN"):
        model.predict(SERIES * np.nan)
    with pytest.raises(ShapeError, match="washout"):
        EchoState(10, washout=40).fit(SERIES, SERIES)


def test_torch_tensors_are_taken():
    model = EchoState(10, random_state=0)
    given = torch.from_numpy(SERIES)
    np.testing.assert_allclose(model.fit(given, given[..., 0]).predict(given), model.predict(SERIES))
