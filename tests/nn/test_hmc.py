from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor

from neuropil.errors import ConfigError, NonFiniteError, ShapeError
from neuropil.nn.hmc import _Point, _proposal, effective_sample_size, hmc_sample, split_r_hat

COVARIANCE = torch.tensor([[2.0, 0.8], [0.8, 0.5]], dtype=torch.double)
MEAN = torch.tensor([1.0, -2.0], dtype=torch.double)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(x: Tensor) -> Tensor:
    d = x - MEAN.to(x)
    return -0.5 * (d @ torch.linalg.inv(COVARIANCE).to(x) * d).sum(1)


def sampling() -> partial:
    start = torch.randn(3, 2, generator=seeded(), dtype=torch.double)
    return partial(_sample, start)


def _sample(start: Tensor) -> object:
    return hmc_sample(gaussian, start, samples=8, warmup=4, leapfrog_steps=3, generator=seeded(1))


PARTS = [("analysis", sampling)]


def test_moments_of_a_correlated_gaussian() -> None:
    start = 3 * torch.randn(20, 2, generator=seeded(), dtype=torch.double)
    drawn = hmc_sample(gaussian, start, samples=200, warmup=100, leapfrog_steps=8, generator=seeded(1))
    error = 5 * (COVARIANCE.diag() / drawn.effective_samples).sqrt()
    assert ((drawn.together.mean(0) - MEAN).abs() < error).all()
    torch.testing.assert_close(drawn.together.mT.cov(), COVARIANCE, rtol=0.15, atol=0.05)
    assert 0.7 < drawn.acceptance < 0.9 and (drawn.r_hat < 1.03).all() and drawn.divergences == 0
    assert drawn.samples.shape == (20, 200, 2) and drawn.log_density.shape == (20, 200)
    torch.testing.assert_close(drawn.log_density[:, 5], gaussian(drawn.samples[:, 5]))


def test_a_path_can_be_walked_back_and_its_energy_error_is_of_second_order() -> None:
    start = _Point.of(gaussian, torch.randn(5, 2, generator=seeded(), dtype=torch.double))
    momentum = torch.randn(5, 2, generator=seeded(1), dtype=torch.double)
    place, velocity = start.place, momentum
    for _ in range(10):  # the leapfrog written out
        gradient = -(place - MEAN) @ torch.linalg.inv(COVARIANCE)
        velocity = velocity + 0.05 * gradient
        place = place + 0.1 * velocity
        velocity = velocity + 0.05 * -(place - MEAN) @ torch.linalg.inv(COVARIANCE)
    end, _ = _proposal(gaussian, start, momentum, 0.1, 10)
    torch.testing.assert_close(end.place, place)
    back, _ = _proposal(gaussian, end, -velocity, 0.1, 10)
    torch.testing.assert_close(back.place, start.place)
    errors = [float(_proposal(gaussian, start, momentum, 0.8 / n, n)[1].abs().mean()) for n in (16, 32, 64)]
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(4, rel=0.15)


def test_chains_in_different_modes_are_told() -> None:
    def two_wells(x: Tensor) -> Tensor:
        return torch.logaddexp(-8 * (x[:, 0] - 3).square(), -8 * (x[:, 0] + 3).square())

    start = torch.tensor([[3.0], [3.0], [-3.0], [-3.0]])
    drawn = hmc_sample(two_wells, start, samples=50, warmup=30, leapfrog_steps=5, generator=seeded())
    assert drawn.r_hat > 2 and drawn.effective_samples < 20


def test_r_hat_is_its_formula() -> None:
    x = torch.randn(3, 10, 2, generator=seeded(), dtype=torch.double)
    halves = [chain[part] for chain in x for part in (slice(0, 5), slice(5, 10))]
    for p in range(2):
        means = torch.stack([h[:, p].mean() for h in halves])
        within = sum(float(((h[:, p] - h[:, p].mean()) ** 2).sum() / 4) for h in halves) / 6
        between = 5 * float(((means - means.mean()) ** 2).sum() / 5)
        expected = math.sqrt((4 / 5 * within + between / 5) / within)
        assert float(split_r_hat(x)[p]) == pytest.approx(expected)


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_effective_size_of_an_autoregression_is_known(memory: float) -> None:
    noise = torch.randn(4, 3000, 1, generator=seeded(2), dtype=torch.double)
    chain = [noise[:, 0] / math.sqrt(1 - memory**2)]
    for step in range(1, 3000):
        chain.append(memory * chain[-1] + noise[:, step])
    found = float(effective_sample_size(torch.stack(chain, 1)))
    assert found == pytest.approx(12000 * (1 - memory) / (1 + memory), rel=0.15)


def test_bad_calls_are_refused() -> None:
    start = torch.zeros(2, 2)
    with pytest.raises(ShapeError, match="2 chains or more"):
        hmc_sample(gaussian, torch.zeros(1, 2))
    for name, value in {
        "samples": 3,
        "leapfrog_steps": 0,
        "step_size": 0.0,
        "target_acceptance": 1.0,
    }.items():
        with pytest.raises(ConfigError, match=f"hmc_sample.{name}: got {value}"):
            hmc_sample(gaussian, start, **{name: value})
    with pytest.raises(NonFiniteError, match="starting point"):
        hmc_sample(lambda x: x.sum(1) / 0, start)
