from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.nn import RateReadout, Sequential
from neuropil.spiking import ELM
from neuropil.spiking.elm_neuron import windows


def elm(**settings: object):
    return ELM(6, 4, tau_range=(1, 20), **settings), torch.rand(7, 3, 6)


PARTS = [
    ("module", elm),
    ("module", partial(elm, num_branch=3, synapses_per_branch=4, learn_tau=True)),
    ("module", partial(elm, hidden=5, dt=0.5, strength=2.0)),
]


def literal(cell: ELM, x: np.ndarray) -> np.ndarray:
    """The paper's equations in numpy, one synapse after the other."""
    weight = {name: value.detach().double().numpy() for name, value in cell.named_parameters()}
    tau = cell.tau.detach().double().numpy()
    kappa_b = np.exp(-cell.dt / float(cell.tau_branch))
    kappa_m, kappa_l = np.exp(-cell.dt / tau), np.exp(-cell.strength * cell.dt / tau)
    out = np.zeros((len(x), x.shape[1], cell.num_memory))
    for sample in range(x.shape[1]):
        b, m = np.zeros(cell.num_branch), np.zeros(cell.num_memory)
        for t in range(len(x)):
            b = kappa_b * b
            for branch, route in enumerate(cell.routes.tolist()):
                for synapse, source in enumerate(route):
                    b[branch] += max(weight["synapses"][branch, synapse], 0) * x[t, sample, source]
            seen = np.concatenate([b, kappa_m * m])
            hidden = np.maximum(weight["look.weight"] @ seen + weight["look.bias"], 0)
            update = 1.7159 * np.tanh(2 / 3 * (weight["write.weight"] @ hidden + weight["write.bias"]))
            m = kappa_m * m + (1 - kappa_l) * update
            out[t, sample] = m
    return out


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_branch": 3, "synapses_per_branch": 4}, {"learn_tau": True, "dt": 0.5, "strength": 3.0}],
)
def test_it_is_the_papers_equations(settings):
    torch.manual_seed(0)
    cell, x = elm(**settings)
    with torch.no_grad():
        cell.synapses.add_(torch.randn_like(cell.synapses))  # some below zero, which do not transmit
    found = cell.double()(x.double())[0]
    assert_close(found, torch.from_numpy(literal(cell, x.numpy())), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("settings", [{}, {"num_branch": 3, "synapses_per_branch": 4}])
def test_starting_at_rest_is_starting_from_a_state_of_zeros(settings):
    """Also in its gradients, although single synapses weigh what has leaked when nothing came before."""
    cell, x = elm(**settings)
    cell, x = cell.double(), x.double().requires_grad_()
    with torch.no_grad():
        cell.synapses.add_(torch.randn_like(cell.synapses))
    given = [x, *cell.parameters()]
    found = []
    for state in (None, cell.initial_state(x)):
        y, last = cell(x, state)
        loss = y.square().sum() + last.branch.sum() + last.memory.sum()
        found.append([y, *last, *torch.autograd.grad(loss, given)])
    assert_close(*found)


def test_time_constants_span_the_range_evenly_on_a_logarithmic_scale():
    assert_close(ELM(2, 4, tau_range=(1, 1000)).tau, torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    learned = ELM(2, 4, tau_range=(1, 1000), learn_tau=True)
    with torch.no_grad():
        learned.tau_logit.mul_(100)
    assert learned.tau.min() >= 1 - 1e-5 and learned.tau.max() <= 1000.01


def test_an_untouched_memory_decays_with_its_time_constant():
    cell = ELM(2, 3, tau_range=(2, 50))
    nn.init.zeros_(cell.write.weight)
    nn.init.zeros_(cell.write.bias)
    start = cell.initial_state(torch.zeros(1, 1, 2))._replace(memory=torch.ones(1, 3))
    y, _ = cell(torch.zeros(10, 1, 2), start)
    assert_close(y[-1, 0], torch.exp(-10 / cell.tau))


def test_memories_stay_in_bounds():
    """A constant update of `u` leads to `u (1 - kappa_lambda) / (1 - kappa_m)`, less than `strength * u`."""
    cell, _ = elm()
    y, _ = cell(100 * torch.rand(200, 2, 6))
    bound = 1.7159 * (1 - torch.exp(-5 / cell.tau)) / (1 - torch.exp(-1 / cell.tau))
    assert (y.abs() <= bound + 1e-4).all()


def test_negative_synapses_do_not_transmit():
    cell, x = elm()
    nn.init.constant_(cell.synapses, -1.0)
    assert_close(cell(x)[0], cell(torch.zeros_like(x))[0])


def test_windows_reach_all_inputs():
    assert windows(6, 3).tolist() == [[0, 1], [2, 3], [4, 5]]
    reached = windows(1278, 45, 100)
    assert reached.shape == (45, 100) and reached.unique().tolist() == list(range(1278))


def test_it_learns_in_a_users_network_what_needs_memory():
    """Which of two inputs came first, 30 steps ago."""
    torch.manual_seed(0)
    net = Sequential(ELM(2, 8, tau_range=(1, 50)), nn.Linear(8, 2))
    x, y = torch.zeros(32, 64, 2), torch.arange(64) % 2
    x[0, torch.arange(64), y] = 1
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x)[-1], y).backward()
        optimizer.step()
    assert (net(x)[-1].argmax(-1) == y).all()
    assert Sequential(ELM(2, 8), RateReadout())(x).shape == (64, 8)


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda: ELM(0, 4), ConfigError, "num_input: got 0"),
        (lambda: ELM(4, 4, tau_branch=0.0), ConfigError, "tau_branch: got 0.0"),
        (lambda: ELM(4, 4, tau_range=(5, 1)), ConfigError, "tau_range: got"),
        (lambda: ELM(4, 4, tau_range=(5, 5), learn_tau=True), ConfigError, "expected a range"),
        (lambda: ELM(4, 4, num_branch=2, synapses_per_branch=9), ConfigError, "expected 1 to 4"),
        (lambda: ELM(4, 4, dt=math.inf), ConfigError, "dt: got inf"),
        (lambda: ELM(4, 4)(torch.zeros(2, 1, 5)), ShapeError, r"expected \[time, batch, 4\]"),
        (lambda: ELM(4, 4)(torch.zeros(2, 1, 4), (1,)), StateError, "state is tuple"),
    ],
)
def test_bad_settings_get_one_line(act, error, words):
    with pytest.raises(error, match=words) as caught:
        act()
    assert "\n" not in str(caught.value)
