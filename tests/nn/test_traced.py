from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn import LIF, RateReadout, Sequential, Sigmoid, TracedConv2d, TracedLinear

DECAY = 0.5


def traced_linear() -> tuple[nn.Module, Tensor, None]:
    return TracedLinear(4, 3, decay=DECAY), torch.rand(5, 6, 4).round(), None


def traced_conv(**settings: Any) -> tuple[nn.Module, Tensor, None]:
    return TracedConv2d(2, 3, 3, decay=DECAY, **settings), torch.rand(4, 3, 2, 6, 5).round(), None


def online() -> tuple[nn.Module, Tensor]:
    return network(), torch.rand(6, 5)


PARTS = [
    ("module", traced_linear),
    ("module", traced_conv),
    ("module", partial(traced_conv, padding="same", padding_mode="reflect")),
    ("module", online),
]


def network(time_steps: int | None = 4) -> Sequential:
    cell = partial(LIF, DECAY, surrogate=Sigmoid(4.0), temporal_gradient=False)
    return Sequential(
        nn.Linear(5, 8),  # the input is a current and has no trace
        cell(),
        TracedLinear(8, 7, decay=DECAY),
        cell(),
        TracedLinear(7, 3, decay=DECAY),
        RateReadout(),
        time_steps=time_steps,
    )


def test_value_is_the_plain_layers() -> None:
    layer, x, _ = traced_linear()
    y, state = layer(x)
    torch.testing.assert_close(y, functional.linear(x, layer.weight, layer.bias))
    powers = DECAY ** torch.arange(4, -1, -1.0)
    torch.testing.assert_close(state.trace, (powers[:, None, None] * x).sum(0))


def test_gradients_follow_the_equations() -> None:
    layer, x, _ = traced_linear()
    layer, x = layer.double(), x.double().requires_grad_()
    y, _ = layer(x)
    error = torch.randn_like(y)
    grad_x, grad_weight, grad_bias = torch.autograd.grad(y, (x, layer.weight, layer.bias), error)
    trace, expected = torch.zeros(6, 4, dtype=torch.double), torch.zeros(3, 4, dtype=torch.double)
    for step in range(5):
        trace = DECAY * trace + x[step].detach()
        expected += error[step].T @ trace
    torch.testing.assert_close(grad_weight, expected)
    torch.testing.assert_close(grad_x, error @ layer.weight)
    torch.testing.assert_close(grad_bias, error.sum((0, 1)))


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"padding": "same"}], ids=str)
def test_convolution_equals_plain_convolution_of_the_trace(settings: dict[str, Any]) -> None:
    layer, x, _ = traced_conv(**settings)
    layer, x = layer.double(), x.double()
    plain = nn.Conv2d(2, 3, 3, **settings).double()
    plain.load_state_dict(layer.state_dict())
    traces = torch.stack([sum(DECAY ** (t - k) * x[k] for k in range(t + 1)) for t in range(len(x))])
    y, _ = layer(x)
    error = torch.randn_like(y)
    torch.testing.assert_close(y, plain(x.flatten(0, 1)).reshape(y.shape))
    expected = torch.autograd.grad(plain(traces.flatten(0, 1)), plain.weight, error.flatten(0, 1))[0]
    torch.testing.assert_close(torch.autograd.grad(y, layer.weight, error)[0], expected)


def test_without_decay_it_is_backpropagation_of_each_step() -> None:
    layer = TracedLinear(4, 3, decay=0.0)
    x = torch.randn(5, 2, 4)
    plain = functional.linear(x, layer.weight, layer.bias)
    error = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, layer.weight, error)
    torch.testing.assert_close(torch.autograd.grad(layer(x)[0], layer.weight, error), expected)


def online_by_hand(net: Sequential, x: Tensor, target: Tensor, time_steps: int) -> dict[str, Tensor]:
    """Online training through time, one step at a time, with numbers that nobody's autograd touches."""
    sources = (0, 2, 4)
    weights = [net[i].weight.detach() for i in sources]
    biases = [net[i].bias.detach() for i in sources]
    spike_gradient = Sigmoid(4.0).derivative
    membranes = [torch.zeros(len(x), len(b), dtype=x.dtype) for b in biases[:2]]
    traces = [torch.zeros_like(m) for m in membranes]
    gradients = [torch.zeros_like(w) for w in weights]
    bias_gradients = [torch.zeros_like(b) for b in biases]
    # the errors of all steps start from the same loss on the mean of all outputs
    answer = net(x).detach()
    error_out = (answer.softmax(-1) - functional.one_hot(target, 3)) / len(x) / time_steps
    for _ in range(time_steps):
        factors, slopes, activity = [x], [], x
        for k in range(2):
            membranes[k] = DECAY * membranes[k] + activity @ weights[k].T + biases[k]
            slopes.append(spike_gradient(membranes[k] - 1))
            activity = (membranes[k] >= 1).to(x.dtype)
            membranes[k] = membranes[k] - activity
            traces[k] = DECAY * traces[k] + activity
            factors.append(traces[k])
        error = error_out
        for k in (2, 1, 0):
            gradients[k] += error.T @ factors[k]
            bias_gradients[k] += error.sum(0)
            if k:
                error = (error @ weights[k]) * slopes[k - 1]
    names = [str(i) for i in sources]
    return {f"{n}.weight": g for n, g in zip(names, gradients, strict=True)} | {
        f"{n}.bias": g for n, g in zip(names, bias_gradients, strict=True)
    }


def test_network_learns_exactly_as_step_by_step_online_training() -> None:
    torch.manual_seed(1)
    net = network(time_steps=6).double()
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(3)  # so that every layer fires
    x, target = 2 * torch.rand(9, 5, dtype=torch.double), torch.randint(3, (9,))
    functional.cross_entropy(net(x), target).backward()
    expected = online_by_hand(net, x, target, 6)
    assert set(expected) == set(dict(net.named_parameters()))
    for name, parameter in net.named_parameters():
        assert expected[name].abs().max() > 1e-6, f"the test says nothing about {name}"
        torch.testing.assert_close(parameter.grad, expected[name])


def test_presynaptic_factor_can_be_replaced_by_a_hook() -> None:
    layer, x, _ = traced_linear()
    layer.presynaptic.register_forward_hook(lambda module, args, output: torch.zeros_like(output))
    y, state = layer(x)
    assert torch.equal(torch.autograd.grad(y.sum(), layer.weight)[0], torch.zeros(3, 4))
    assert state.trace.abs().sum() > 0


def test_bad_settings_and_inputs_are_told() -> None:
    with pytest.raises(ConfigError, match=r"TracedLinear.decay: got 1.5, expected a number in \[0, 1\]"):
        TracedLinear(4, 3, decay=1.5)
    with pytest.raises(ShapeError, match=r"got \[5, 4\], expected \[time, batch, ..., 4\]"):
        TracedLinear(4, 3, decay=0.5)(torch.zeros(5, 4))
    with pytest.raises(ShapeError, match=r"expected \[time, batch, 2, height, width\]"):
        TracedConv2d(2, 3, 3, decay=0.5)(torch.zeros(5, 4, 3, 6, 6))
