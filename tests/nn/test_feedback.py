from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.nn import (
    FeedbackConv2d,
    FeedbackLinear,
    RateReadout,
    Sequential,
    SignSymmetricConv2d,
    SignSymmetricLinear,
)

CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1},
    {"padding": "same", "dilation": 2},
    {"padding": 1, "padding_mode": "circular", "bias": False},
    {"groups": 2},
]


def linear(kind: type[nn.Linear]) -> tuple[nn.Module, Tensor, None]:
    return kind(4, 3), torch.randn(6, 4), None


def conv(kind: type[nn.Conv2d], **settings: Any) -> tuple[nn.Module, Tensor, None]:
    return kind(2, 4, 3, **settings), torch.randn(3, 2, 6, 5), None


PARTS = [
    ("module", partial(linear, FeedbackLinear)),
    ("module", partial(linear, SignSymmetricLinear)),
    ("module", partial(conv, FeedbackConv2d)),
    ("module", partial(conv, SignSymmetricConv2d, stride=2)),
]


def feedback_of(layer: nn.Linear | nn.Conv2d) -> Tensor:
    if isinstance(layer, FeedbackLinear | FeedbackConv2d):
        return layer.feedback
    if isinstance(layer, nn.Linear):
        return layer.weight.sign() / math.sqrt(layer.in_features)
    kernel = layer.kernel_size[0] * layer.kernel_size[1]
    return layer.weight.sign() * math.sqrt(2 / (kernel * layer.out_channels))


@pytest.mark.parametrize("kind", [FeedbackLinear, SignSymmetricLinear])
def test_linear_value_and_gradients(kind: type[nn.Linear]) -> None:
    layer = kind(4, 3).double()
    x = torch.randn(5, 2, 4, dtype=torch.double, requires_grad=True)
    y, error = layer(x), torch.randn(5, 2, 3, dtype=torch.double)
    assert torch.equal(y, functional.linear(x, layer.weight, layer.bias))
    grad_x, grad_weight, grad_bias = torch.autograd.grad(y, (x, layer.weight, layer.bias), error)
    torch.testing.assert_close(grad_x, error @ feedback_of(layer))
    torch.testing.assert_close(grad_weight, torch.einsum("abo,abi->oi", error, x))
    torch.testing.assert_close(grad_bias, error.sum((0, 1)))


@pytest.mark.parametrize("settings", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("kind", [FeedbackConv2d, SignSymmetricConv2d])
def test_convolution_sends_back_what_a_convolution_with_the_feedback_kernel_would(
    kind: type[nn.Conv2d], settings: dict[str, Any]
) -> None:
    layer = kind(2, 4, 3, **settings).double()
    back = nn.Conv2d(2, 4, 3, **settings).double()
    back.weight.data = feedback_of(layer).detach().clone()
    plain = nn.Conv2d(2, 4, 3, **settings).double()
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "feedback"})
    x = torch.randn(3, 2, 7, 6, dtype=torch.double, requires_grad=True)
    y = layer(x)
    error = torch.randn_like(y)
    torch.testing.assert_close(y, plain(x))
    grad_x, grad_weight = torch.autograd.grad(y, (x, layer.weight), error)
    torch.testing.assert_close(grad_x, torch.autograd.grad(back(x), x, error)[0])
    torch.testing.assert_close(grad_weight, torch.autograd.grad(plain(x), plain.weight, error)[0])


@pytest.mark.parametrize("settings", CONVOLUTIONS, ids=str)
def test_convolution_weight_gradcheck(settings: dict[str, Any]) -> None:
    layer = FeedbackConv2d(2, 4, 3, **settings).double()
    x = torch.randn(2, 2, 5, 5, dtype=torch.double)
    names = list(dict(layer.named_parameters()))

    def run(*values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(run, tuple(layer.parameters()))


@pytest.mark.parametrize("make", [partial(linear, FeedbackLinear), partial(conv, SignSymmetricConv2d)])
def test_gradients_per_sample_add_up(make: Any) -> None:
    layer, x, _ = make()
    net = Sequential(layer.double(), RateReadout(), time_steps=1)
    x = x.double()
    weights = {name: value.detach() for name, value in net.named_parameters()}

    def loss(values: dict[str, Tensor], sample: Tensor) -> Tensor:
        return (torch.func.functional_call(net, values, sample.unsqueeze(0)) ** 2).sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
    (net(x) ** 2).sum().backward()
    for name, value in net.named_parameters():
        torch.testing.assert_close(per_sample[name].sum(0), value.grad)


@pytest.mark.parametrize("make", [partial(FeedbackLinear, 5, 4), partial(FeedbackConv2d, 5, 4, 3)])
def test_feedback_is_drawn_like_the_weight_and_does_not_learn(make: Any) -> None:
    first, second = (make(generator=torch.Generator().manual_seed(3)) for _ in range(2))
    bound = 1 / math.sqrt(first.weight[0].numel())
    assert torch.equal(first.feedback, second.feedback)
    assert not torch.equal(first.feedback, make(generator=torch.Generator().manual_seed(4)).feedback)
    assert 0.7 * bound < first.feedback.abs().max() <= bound
    assert "feedback" in first.state_dict() and "feedback" not in dict(first.named_parameters())


def test_drawing_feedback_leaves_torch_state_alone_when_a_generator_is_given() -> None:
    torch.manual_seed(0)
    weight = nn.Linear(4, 3).weight
    expected = torch.rand(2)
    torch.manual_seed(0)
    layer = FeedbackLinear(4, 3, generator=torch.Generator().manual_seed(3))
    assert torch.equal(layer.weight, weight) and torch.equal(torch.rand(2), expected)


def test_learns_a_linear_map_through_random_feedback() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 20), FeedbackLinear(20, 3, generator=generator))
    target = torch.randn(3, 6)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    losses = []
    for _ in range(200):
        x = torch.randn(64, 6, generator=generator)
        loss = functional.mse_loss(net(x), x @ target.T)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.05 * losses[0]
