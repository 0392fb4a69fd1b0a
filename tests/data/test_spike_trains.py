"""Random trains have the rates, persistence and correlation times that were asked for."""

from __future__ import annotations

import math

import pytest
import torch

from neuropil.data import markov_spikes, switching_spikes
from neuropil.errors import ConfigError, DataError


def test_markov_trains_have_their_rate_and_persistence() -> None:
    spikes = markov_spikes(torch.full((200,), 0.1), 0.5, 2000, generator=torch.Generator().manual_seed(0))
    after = spikes[1:][spikes[:-1] > 0]
    assert spikes.mean().item() == pytest.approx(0.1, abs=0.003)
    assert spikes[0].mean().item() == pytest.approx(0.1, abs=0.08)
    assert after.mean().item() == pytest.approx(0.5, abs=0.01)


def test_equal_rate_and_persistence_leave_no_memory() -> None:
    spikes = markov_spikes(torch.full((100,), 0.2), 0.2, 2000, generator=torch.Generator().manual_seed(0))
    for before in (0, 1):
        assert spikes[1:][spikes[:-1] == before].mean().item() == pytest.approx(0.2, abs=0.006)


@pytest.mark.parametrize("tau", [2.0, 10.0])
def test_a_shared_rate_is_correlated_as_its_time_constant_says(tau: float) -> None:
    rates = torch.full((60,), 0.2, dtype=torch.double)
    spikes = switching_spikes(
        rates,
        torch.full((60,), tau, dtype=torch.double),
        4000,
        2,
        depth=0.8,
        generator=torch.Generator().manual_seed(0),
    )
    a, b = spikes.unbind(-1)
    assert spikes.mean().item() == pytest.approx(0.2, abs=0.005)
    for lag in (0, 2, 6):
        covariance = (a[: len(a) - lag] * b[lag:]).mean() - a.mean() * b.mean()
        assert covariance.item() == pytest.approx(0.04 * 0.64 * math.exp(-lag / tau), abs=0.0025)


def test_a_time_constant_of_zero_is_independence() -> None:
    spikes = switching_spikes(
        torch.full((50,), 0.3), torch.zeros(50), 2000, 2, generator=torch.Generator().manual_seed(0)
    )
    a, b = spikes.unbind(-1)
    assert ((a * b).mean() - a.mean() * b.mean()).abs() < 0.003


def test_same_generator_same_trains() -> None:
    def draw(seed: int) -> torch.Tensor:
        return switching_spikes(
            torch.full((3,), 0.1), torch.full((3,), 4.0), 50, 2, generator=torch.Generator().manual_seed(seed)
        )

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="time_steps"):
        markov_spikes(torch.full((1,), 0.1), 0.1, 0)
    with pytest.raises(DataError, match="persistence"):
        markov_spikes(torch.full((1,), 0.9), 0.1, 5)
    with pytest.raises(DataError, match="rates"):
        markov_spikes(torch.ones(1), 1.0, 5)
    with pytest.raises(DataError, match=r"rates from 0 to 0\.526"):
        switching_spikes(torch.ones(1), torch.ones(1), 5, 2)
    with pytest.raises(ConfigError, match="depth"):
        switching_spikes(torch.ones(1), torch.ones(1), 5, 2, depth=2.0)
