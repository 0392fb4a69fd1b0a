from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from neuropil.errors import ConfigError, NonFiniteError
from neuropil.nn.dsr import DSR


def plain_loop(dsr, x):
    """The neuron as its equations read, one step after the other."""
    decay, threshold = math.exp(-dsr.dt / dsr.tau), dsr.threshold.item()
    u, out = torch.zeros_like(x[0]), []
    for current in x:
        u = decay * u + (1 - decay) * current
        spike = threshold * (u >= dsr.fire_at * threshold).to(x.dtype)
        u = u - spike
        out.append(spike / dsr.dt)
    return torch.stack(out), u


def test_forward_is_the_published_neuron():
    dsr = DSR().double()
    x = 4 * torch.randn(30, 5, 7, dtype=torch.float64)
    out, state = dsr(x)
    wanted, membrane = plain_loop(dsr, x)
    assert out.any()
    assert_close(out, wanted)
    assert_close(state.membrane, membrane)


def test_weighted_rate_is_the_clamped_input_rate_up_to_the_membrane_left():
    dsr = DSR(tau=0.8, dt=0.1).double()
    x = 5 * torch.rand(40, 3, 4, dtype=torch.float64) - 1
    out, state = dsr(x)
    weights = dsr.weights(40)
    assert_close(weights.sum().item(), 1.0)
    gain = (1 - math.exp(-0.1 / 0.8)) / 0.1
    total = torch.exp(-torch.arange(40, dtype=torch.float64) * 0.1 / 0.8).sum()
    # exact charge balance: what came in either went out as spikes or is still in the membrane
    balance = gain * torch.tensordot(weights, x, 1) - state.membrane / (0.1 * total)
    assert_close(torch.tensordot(weights, out, 1), balance, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("uniform", [True, False])
def test_backward_differentiates_the_rate(uniform):
    dsr = DSR(threshold_gradient_scale=1.0).double()
    generator = torch.Generator().manual_seed(0)
    x = 8 * torch.randn(12, 4, 3, generator=generator, dtype=torch.float64)
    x = (x + torch.tensor([-2.0, 3.0, 12.0])).requires_grad_()  # silent, between, saturated
    readout = torch.full((12,), 1 / 12, dtype=torch.float64) if uniform else dsr.weights(12)
    upstream = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    leaves = [x, dsr.threshold]
    mine = torch.autograd.grad((torch.tensordot(readout, dsr(x)[0], 1) * upstream).sum(), leaves)
    gain = (1 - math.exp(-dsr.dt / dsr.tau)) / dsr.dt
    rate = (gain * torch.tensordot(dsr.weights(12), x, 1)).clamp(min=0).minimum(dsr.threshold / dsr.dt)
    wanted = torch.autograd.grad((rate * upstream).sum(), leaves)
    assert wanted[0].any() and wanted[1] != 0
    assert_close(mine, wanted, rtol=1e-6, atol=1e-9)


def test_threshold_is_scaled_and_kept_above_the_floor():
    x = torch.full((10, 1, 1), 100.0)
    for scale, expected in ((None, 0.05), (1.0, 20.0)):
        dsr = DSR(threshold_gradient_scale=scale)
        dsr(x)[0].mean(0).sum().backward()
        assert_close(dsr.threshold.grad.item(), expected, rtol=1e-4, atol=0)
    with torch.no_grad():
        dsr.threshold.fill_(-1.0)
    out, _ = dsr(x)
    assert_close(out.max().item(), 0.0005 / 0.05, rtol=1e-5, atol=0)
    assert torch.autograd.grad(out.sum(), dsr.threshold)[0] != 0


def test_spikes_of_a_sequence_equal_those_of_its_parts():
    dsr, x = DSR().double(), 4 * torch.randn(9, 2, 3, dtype=torch.float64)
    whole, state = dsr(x)
    first, carried = dsr(x[:4])
    second, carried = dsr(x[4:], carried)
    assert torch.equal(whole, torch.cat([first, second]))
    assert_close(state.membrane, carried.membrane)


def test_compiled_equals_eager():
    dsr, x = DSR(), (4 * torch.randn(6, 2, 3)).requires_grad_()
    torch._dynamo.reset()
    mine, wanted = torch.compile(dsr, backend="aot_eager")(x)[0], dsr(x)[0]
    assert torch.equal(mine, wanted)
    leaves = [x, dsr.threshold]
    assert_close(torch.autograd.grad(mine.sum(), leaves), torch.autograd.grad(wanted.sum(), leaves))


def test_bad_use_gets_one_line():
    with pytest.raises(ConfigError, match=r"DSR.tau: got 0, expected a finite number > 0"):
        DSR(tau=0)
    with pytest.raises(ConfigError, match=r"DSR.fire_at: got 2, expected a share in \(0, 1\]"):
        DSR(fire_at=2)
    with pytest.raises(ConfigError, match="time_steps is 0, expected at least 1"):
        DSR().weights(0)
    with pytest.raises(NonFiniteError, match="DSR: membrane"):
        DSR()(torch.full((2, 1, 1), math.inf))
