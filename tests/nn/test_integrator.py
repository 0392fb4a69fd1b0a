from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from neuropil.errors import ConfigError, NonFiniteError, StateError
from neuropil.nn.integrator import IntegratorState, LeakyIntegrator


def test_constant_input_follows_the_closed_form():
    membrane, _ = LeakyIntegrator(0.8)(torch.ones(10, 1, 1, dtype=torch.float64))
    steps = torch.arange(1, 11, dtype=torch.float64)
    assert_close(membrane.flatten(), (1 - 0.8**steps) / (1 - 0.8), rtol=1e-6, atol=1e-6)


def test_sequence_equals_its_parts():
    integrator, x = LeakyIntegrator(0.9, learn_decay=True, features=4), torch.randn(7, 2, 4)
    whole, state = integrator(x)
    first, carried = integrator(x[:3])
    second, carried = integrator(x[3:], carried)
    assert torch.equal(whole, torch.cat([first, second])) and torch.equal(state.membrane, carried.membrane)


def test_learned_decay_has_its_gradient():
    integrator = LeakyIntegrator(0.6, learn_decay=True).double()
    x = torch.randn(5, 2, 3, dtype=torch.float64)

    def last(logit):
        return torch.func.functional_call(integrator, {"decay_logit": logit}, x)[1].membrane

    assert torch.autograd.gradcheck(last, integrator.decay_logit)


def test_compiled_equals_eager():
    integrator, x = LeakyIntegrator(0.9, learn_decay=True), torch.randn(4, 2, 3, requires_grad=True)
    torch._dynamo.reset()
    mine, wanted = torch.compile(integrator, backend="aot_eager")(x)[0], integrator(x)[0]
    assert torch.equal(mine, wanted)
    leaves = [x, integrator.decay_logit]
    assert_close(torch.autograd.grad(mine.sum(), leaves), torch.autograd.grad(wanted.sum(), leaves))


def test_bad_use_gets_one_line():
    with pytest.raises(ConfigError, match=r"LeakyIntegrator.decay: got 0.0, expected a decay in \(0, 1\]"):
        LeakyIntegrator(0.0)
    with pytest.raises(StateError, match=r"state.membrane has shape"):
        LeakyIntegrator()(torch.zeros(2, 3, 4), IntegratorState(torch.zeros(3, 5)))
    with pytest.raises(NonFiniteError, match="LeakyIntegrator: membrane"):
        LeakyIntegrator()(torch.full((2, 1, 1), math.nan))
