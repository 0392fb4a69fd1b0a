from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from neuropil.errors import ConfigError, NonFiniteError, ShapeError
from neuropil.kernels.reservoir import leaky_reservoir_reference
from neuropil.spiking import lyapunov_exponents, memory_capacity, spectral_radius


def radius():
    return partial(spectral_radius, torch.randn(6, 6))


def memory():
    u = np.random.default_rng(0).normal(size=600)
    return partial(memory_capacity, np.stack([np.roll(u, k) for k in range(4)], 1), u)


def henon(x):
    return torch.stack([1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]])


def chaos():
    return partial(lyapunov_exponents, henon, torch.tensor([0.1, 0.2], dtype=torch.double), steps=50, count=2)


PARTS = [("analysis", radius), ("analysis", memory), ("analysis", chaos)]


def test_the_radius_of_a_rotation_and_of_a_triangle():
    rotation = 0.7 * torch.tensor([[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]])
    assert spectral_radius(rotation).radius == pytest.approx(0.7)
    found = spectral_radius(torch.tensor([[-2.0, 5.0], [0.0, 1.0]]).to_sparse_csr())
    assert found.eigenvalues.tolist() == [-2, 1]
    with pytest.raises(ShapeError, match="square"):
        spectral_radius(torch.ones(2, 3))


def linear_states(w, v, u):
    x, states = np.zeros(len(w)), []
    for now in u:
        x = w @ x + v * now
        states.append(x)
    return np.array(states)


def test_memory_of_a_linear_network_is_what_theory_says():
    """For white input, capacity k is `v' (W')^k S^-1 W^k v` with `S` the covariance of the states, and sums to N."""
    rng = np.random.default_rng(1)
    units = 8
    w = rng.normal(size=(units, units))
    w *= 0.9 / abs(np.linalg.eigvals(w)).max()
    v = rng.normal(size=units)
    reached = [v]
    for _ in range(600):
        reached.append(w @ reached[-1])
    inverse = np.linalg.inv(np.array(reached).T @ np.array(reached))
    theory = np.array([r @ inverse @ r for r in reached[:30]])
    u = rng.normal(size=30000)
    found = memory_capacity(linear_states(w, v, u), u, delays=30)
    np.testing.assert_allclose(found.by_delay, theory, atol=0.03)
    assert sum(r @ inverse @ r for r in reached) == pytest.approx(units)
    assert found.total == pytest.approx(theory.sum(), abs=0.25) and found.total <= units + 0.05


def test_states_that_know_nothing_remember_nothing():
    rng = np.random.default_rng(0)
    assert memory_capacity(rng.normal(size=(4000, 20)), rng.normal(size=4000)).total < 0.1


def test_memory_settings_are_checked():
    with pytest.raises(ShapeError, match="as many"):
        memory_capacity(np.ones((50, 2)), np.ones(49))
    with pytest.raises(ShapeError, match="too few"):
        memory_capacity(np.ones((50, 2)), np.ones(50))
    with pytest.raises(ConfigError, match="delays"):
        memory_capacity(np.ones((500, 2)), np.ones(500), delays=0)


def test_exponents_of_a_linear_map_are_the_logarithms_of_its_eigenvalues():
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.double)).Q
    sizes = torch.tensor([0.9, 0.5, 0.2, 0.1], dtype=torch.double)
    w = basis @ sizes.diag() @ basis.T
    found = lyapunov_exponents(lambda x: w @ x, torch.ones(4, dtype=torch.double), steps=50, count=4)
    np.testing.assert_allclose(found.exponents, sizes.log(), atol=1e-6)


def test_exponents_of_known_chaos():
    start = torch.tensor([0.3], dtype=torch.double)
    logistic = lyapunov_exponents(lambda x: 4 * x * (1 - x), start, steps=1200)
    assert logistic.largest == pytest.approx(math.log(2), abs=0.03)
    periodic = lyapunov_exponents(lambda x: 3.2 * x * (1 - x), start, steps=200)
    cycle = 4 + 2 * 3.2 - 3.2**2  # derivative of the map over its cycle of two
    assert periodic.largest == pytest.approx(math.log(abs(cycle)) / 2, abs=1e-6)
    both = lyapunov_exponents(henon, torch.tensor([0.1, 0.2], dtype=torch.double), steps=600, count=2)
    assert both.exponents.sum() == pytest.approx(math.log(0.3), abs=1e-6)  # the area shrinks by 0.3 each step
    assert both.largest == pytest.approx(0.419, abs=0.05)


def test_a_driven_reservoir_forgets_below_and_not_far_above_the_edge():
    torch.manual_seed(0)
    w = torch.randn(60, 60, dtype=torch.double) / math.sqrt(60)
    inputs = 0.1 * torch.randn(400, 1, dtype=torch.double)
    into, one = torch.randn(60, 1, dtype=torch.double), torch.ones(1, dtype=torch.double)

    def largest(scale):
        def step(x, u):
            return leaky_reservoir_reference(u.view(1, 1, 1), x[None], scale * w, into, None, one)[0, 0]

        return lyapunov_exponents(step, torch.zeros(60, dtype=torch.double), inputs=inputs, steps=300).largest

    assert largest(0.5) < -0.3 and largest(3.0) > 0.05


def test_running_off_and_bad_settings_are_told():
    one = torch.ones(1, dtype=torch.double)
    with pytest.raises(NonFiniteError, match="step"):
        lyapunov_exponents(lambda x: x**2 * 1e9, 10 * one)
    with pytest.raises(ConfigError, match="count"):
        lyapunov_exponents(lambda x: x, one, count=2)
    with pytest.raises(ShapeError, match="expected one for each"):
        lyapunov_exponents(lambda x, u: x, one, inputs=torch.ones(10, 1))
    with pytest.raises(ShapeError, match="expected the same"):
        lyapunov_exponents(lambda x: torch.cat([x, x]), one)
