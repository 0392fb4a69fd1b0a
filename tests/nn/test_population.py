from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn import LIF, Population, gamma_spread


def generator():
    return torch.Generator().manual_seed(0)


def test_connections_obey_the_law_and_their_statistics():
    neurons = Population(800, 200)
    weights = neurons.connections(0.1, 2.0, balance=1.0, spread=0.5, generator=generator())
    assert (weights * neurons.signs >= 0).all() and not weights.diagonal().any()
    exists = weights != 0
    assert_close(exists.float().mean().item(), 0.1, rtol=0.02, atol=0)
    excitatory, inhibitory = weights[:, :800][exists[:, :800]], weights[:, 800:][exists[:, 800:]]
    assert_close(excitatory.mean().item(), 2 / math.sqrt(100), rtol=0.02, atol=0)
    assert_close(inhibitory.mean().item(), -4 * 2 / math.sqrt(100), rtol=0.03, atol=0)
    assert_close(excitatory.log().std().item(), 0.5, rtol=0.02, atol=0)
    per_row = weights.sum(1)  # balanced: nothing on average, of the size of one standard deviation of a sum
    assert abs(per_row.mean()) < 0.2 * per_row.std()


def test_same_generator_same_connections():
    one, two = (Population(8, 2).connections(0.5, generator=generator()) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(
        Population(8, 2).delays(1, 5, generator=generator()),
        Population(8, 2).delays(1, 5, generator=generator()),
    )


def test_a_population_of_one_kind():
    assert (Population(5, 0).connections(1.0) >= 0).all()
    assert (Population(0, 5).connections(1.0) <= 0).all()


def test_delays_lie_in_their_range():
    delays = Population(20, 5).delays(2, 4, generator=generator())
    assert delays.unique().tolist() == [2, 3, 4]


def test_gamma_spread_has_its_moments_and_serves_a_cell():
    taus = gamma_spread(20.0, 0.3, (50, 400), generator())
    assert_close(taus.mean().item(), 20.0, rtol=0.01, atol=0)
    assert_close(taus.std().item(), 6.0, rtol=0.02, atol=0)
    skew = ((taus - 20) / 6).pow(3).mean().item()
    assert_close(skew, 2 * 0.3, rtol=0.1, atol=0)  # of a gamma distribution: twice its variation
    assert gamma_spread(3.0, 0.0, 2).tolist() == [3.0, 3.0]
    decays = torch.exp(-1 / gamma_spread(20.0, 0.5, 7, generator()))
    assert LIF(decays, features=7)(torch.rand(5, 2, 7))[0].shape == (5, 2, 7)


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda: Population(0, 0), ConfigError, "expected at least one neuron"),
        (lambda: Population(-1, 5), ConfigError, "got -1 excitatory and 5 inhibitory"),
        (
            lambda: Population().connections(0.0),
            ConfigError,
            r"density is 0.0, expected a number in \(0, 1\]",
        ),
        (lambda: Population().connections(spread=-1.0), ConfigError, "spread is -1.0"),
        (lambda: Population().delays(3, 2), ConfigError, "got 3 to 2"),
        (lambda: Population(2, 1).split(torch.zeros(4)), ShapeError, r"expected \[..., 3\]"),
        (lambda: gamma_spread(-1.0, 0.5, 3), ConfigError, "mean -1.0"),
    ],
)
def test_bad_arguments_get_one_line(act, error, words):
    with pytest.raises(error, match=words):
        act()
