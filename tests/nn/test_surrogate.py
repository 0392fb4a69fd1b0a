from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from neuropil.errors import ConfigError
from neuropil.nn.surrogate import ArcTan, FastSigmoid, Sigmoid, StraightThrough, Surrogate, Triangle

ALL = [Sigmoid(4.0), Sigmoid(1.0), ArcTan(2.0), FastSigmoid(25.0), Triangle(0.6), StraightThrough(1.4)]
AREA = [1, 1, 1, 2 / 25, 1, 1.4]


@pytest.mark.parametrize("surrogate", ALL, ids=str)
def test_derivative_is_that_of_smooth(surrogate):
    u = torch.linspace(-2.03, 2.05, 41, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(surrogate.smooth(u).sum(), u)
    assert_close(surrogate.derivative(u), slope)
    assert_close(surrogate.smooth(torch.zeros(())), torch.tensor(0.5))


@pytest.mark.parametrize(("surrogate", "area"), list(zip(ALL, AREA, strict=True)), ids=str)
def test_area_is_the_documented_one(surrogate, area):
    far = torch.tensor(1e9, dtype=torch.float64)
    assert math.isclose(surrogate.smooth(far) - surrogate.smooth(-far), area, rel_tol=1e-6)


@pytest.mark.parametrize("surrogate", ALL, ids=str)
def test_call_is_a_step_with_the_derivative_behind_it(surrogate):
    u = torch.tensor([-1.0, -0.1, 0.0, 0.1, 1.0, math.nan], dtype=torch.float64, requires_grad=True)
    spikes = surrogate(u)
    assert spikes.tolist() == [0, 0, 1, 1, 1, 0]
    upstream = torch.arange(6, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(spikes, u, upstream)
    assert_close(gradient[:5], (upstream * surrogate.derivative(u.detach()))[:5])


def test_call_maps_and_compiles():
    u = torch.randn(3, 4, requires_grad=True)
    per_sample = torch.func.vmap(torch.func.grad(lambda v: Sigmoid()(v).sum()))(u)
    assert_close(per_sample, Sigmoid().derivative(u))
    compiled = torch.compile(lambda v: ArcTan()(v).sum(), backend="aot_eager", fullgraph=True)
    assert_close(torch.autograd.grad(compiled(u), u)[0], ArcTan().derivative(u))


@pytest.mark.parametrize("make", [Sigmoid, ArcTan, FastSigmoid, Triangle, StraightThrough])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_bad_scale_is_refused(make, bad):
    with pytest.raises(ConfigError, match=rf"{make.__name__}\.\w+: got {bad}, expected"):
        make(bad)


def test_one_of_your_own():
    class Exponential(Surrogate):
        def derivative(self, u):
            return torch.exp(-u.abs())

    u = torch.tensor([0.5], requires_grad=True)
    Exponential()(u).backward()
    assert_close(u.grad, torch.exp(torch.tensor([-0.5])))
