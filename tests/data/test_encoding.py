"""Encoders against what is known of them: means, orders, closed forms, and what can be decoded again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuropil import data
from neuropil.errors import ConfigError, DataError, ShapeError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rates_are_the_values_and_steps_are_independent():
    x = torch.linspace(0, 1, 11, dtype=torch.double)[None]
    spikes = data.rate_encode(x, 4000, generator=generator())
    assert spikes.unique().tolist() == [0.0, 1.0] and spikes.dtype == torch.double
    deviation = (x * (1 - x) / 4000).sqrt()
    assert ((spikes.mean(0) - x).abs() <= 5 * deviation).all()
    together = (spikes[1:, 0, 5] * spikes[:-1, 0, 5]).mean()  # two steps of the value 1/2
    assert abs(together - 0.25) < 5 * math.sqrt(3 / 16 / 4000)


def test_same_seed_same_spikes_and_the_state_of_the_process_stays():
    x, before = torch.rand(2, 5), torch.get_rng_state()
    first = data.rate_encode(x, 7, generator=generator(3))
    assert torch.equal(first, data.rate_encode(x, 7, generator=generator(3)))
    assert torch.equal(before, torch.get_rng_state())


def test_poisson_steps_hold_a_spike_with_the_probability_of_at_least_one():
    rates = torch.tensor([[10.0, 100.0, 2000.0]])
    spikes = data.poisson_encode(rates, 20_000, step=1e-3, generator=generator())
    expected = 1 - torch.exp(-rates * 1e-3)
    assert ((spikes.mean(0) - expected).abs() < 5 * (expected * (1 - expected) / 20_000).sqrt()).all()


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=20), st.sampled_from([None, 5.0]))
@settings(max_examples=40, deadline=None)
def test_larger_values_never_come_later_and_there_is_one_spike(values, time_constant):
    x = torch.tensor([values])
    spikes = data.latency_encode(x, 25, time_constant=time_constant, threshold=0.05)[:, 0]
    assert spikes.sum(0).max() <= 1
    fired = spikes.sum(0) > 0
    times = spikes.argmax(0)[fired]
    order = x[0][fired].argsort(descending=True)
    assert (times[order].diff() >= 0).all()
    assert not fired[x[0] < 0.05].any()


def test_latency_is_the_time_at_which_a_leaky_membrane_reaches_the_threshold():
    tau, threshold, x = 20.0, 0.2, torch.tensor([[0.25, 0.5, 0.9]], dtype=torch.double)
    times = data.latency_encode(x, 100, time_constant=tau, threshold=threshold).argmax(0)[0]
    fine = torch.arange(0, 100, 1e-3, dtype=torch.double)[:, None]
    reached = (x[0] * (1 - torch.exp(-fine / tau)) >= threshold).double().argmax(0) * 1e-3
    assert (times - reached).abs().max() <= 0.5 + 2e-3
    linear = data.latency_encode(torch.tensor([[1.0, 0.2]]), 9, threshold=0.2).argmax(0)[0]
    assert linear.tolist() == [0, 8]


@given(
    st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=30),
    st.floats(0.05, 2),
)
@settings(max_examples=60, deadline=None)
def test_a_signal_is_known_to_within_one_level(values, threshold):
    x = torch.tensor(values, dtype=torch.double).view(-1, 1, 1)
    events = data.level_encode(x, threshold)
    assert ((events[:, :, 0] == 0) | (events[:, :, 1] == 0)).all()
    decoded = data.level_decode(events, threshold, x[0])
    assert (decoded - x).abs().max() <= threshold * (1 + 1e-6)


def test_levels_of_a_ramp_are_crossed_once_each_however_slow_it_is():
    x = torch.linspace(0, 3, 301, dtype=torch.double).view(-1, 1, 1)
    assert data.level_encode(x, 0.5)[:, 0, 0].sum() == 6
    assert data.delta_encode(x, 0.5).sum() == 0  # no step is that large
    assert data.delta_encode(x[::50], 0.5)[:, 0].sum(0).flatten().tolist() == [6, 0]


def test_what_the_limit_holds_back_follows_later():
    x = torch.tensor([0.0, 2.2, 2.2, 2.2], dtype=torch.double).view(-1, 1, 1)
    assert data.level_encode(x, 1.0, limit=1)[:, 0, 0, 0].tolist() == [0, 1, 1, 0]


def test_populations_are_gaussians_about_their_preferred_values():
    x = torch.linspace(-1, 3, 9, dtype=torch.double)
    activity = data.population_encode(x, 5, low=-1, high=3, width=2.0)
    preferred = np.linspace(-1, 3, 5)
    expected = np.exp(-0.5 * ((x.numpy()[:, None] - preferred) / 0.5) ** 2)
    np.testing.assert_allclose(activity, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (
            lambda: data.rate_encode(torch.tensor([1.5]), 3),
            DataError,
            r"\[1.5, 1.5\], expected numbers in \[0, 1\]",
        ),
        (lambda: data.rate_encode(torch.tensor([3]), 3), DataError, "scale bytes"),
        (lambda: data.rate_encode(torch.rand(1), 0), ConfigError, "at least 1"),
        (lambda: data.poisson_encode(torch.tensor([-1.0]), 3), DataError, "expected"),
        (lambda: data.poisson_encode(torch.ones(1), 3, step=0), ConfigError, "seconds > 0"),
        (lambda: data.latency_encode(torch.rand(1), 3, threshold=0), ConfigError, "threshold"),
        (lambda: data.latency_encode(torch.rand(1), 3, time_constant=-1), ConfigError, "steps > 0"),
        (lambda: data.delta_encode(torch.rand(3, 1), 0), ConfigError, "number > 0"),
        (lambda: data.level_encode(torch.rand(3), 1), ShapeError, "time, batch"),
        (lambda: data.level_encode(torch.full((3, 1), math.nan), 1), DataError, "finite"),
        (lambda: data.level_encode(torch.rand(3, 1), 1, limit=0), ConfigError, "limit"),
        (lambda: data.level_decode(torch.rand(3, 1, 3), 1), ShapeError, "level_decode"),
        (lambda: data.population_encode(torch.rand(2), 1), ConfigError, "at least 2"),
        (lambda: data.population_encode(torch.rand(2), 3, low=1, high=0), ConfigError, "low < high"),
    ],
)
def test_bad_input_gets_one_line(call, kind, match):
    with pytest.raises(kind, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
