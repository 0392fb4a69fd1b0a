from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from neuropil.errors import ConfigError, LabelError, ShapeError
from neuropil.nn import (
    LIF,
    CountCrossEntropy,
    LatencyCrossEntropy,
    MembraneCrossEntropy,
    RateCrossEntropy,
    RateMSE,
    StepCrossEntropy,
    latency,
)

LOSSES = [
    CountCrossEntropy,
    LatencyCrossEntropy,
    MembraneCrossEntropy,
    RateCrossEntropy,
    RateMSE,
    StepCrossEntropy,
]


def loss(kind: type[nn.Module]) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    return kind(), (torch.rand(4, 5, 3), torch.randint(3, (5,)))


PARTS = [("module", partial(loss, kind)) for kind in LOSSES]


@given(st.integers(1, 6), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_latency_counts_the_steps_before_the_first_spike(time: int, seed: int) -> None:
    spikes = (torch.rand(time, 2, 3, generator=torch.Generator().manual_seed(seed)) > 0.7).float()
    expected = torch.full((2, 3), float(time))
    for step in reversed(range(time)):
        expected[spikes[step] > 0] = step
    assert torch.equal(latency(spikes), expected)


def test_latency_of_probabilities_is_the_expected_wait() -> None:
    p = torch.tensor([0.2, 0.5, 0.9], dtype=torch.double)
    expected = 0.0
    for spikes in itertools.product([0, 1], repeat=3):
        chance = math.prod(float(q if s else 1 - q) for q, s in zip(p, spikes, strict=True))
        expected += chance * (spikes.index(1) if 1 in spikes else 3)
    assert latency(p[:, None, None]).item() == pytest.approx(expected)


def test_latency_gradient_at_spikes() -> None:
    spikes = torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0]).reshape(-1, 1, 1).requires_grad_()
    latency(spikes).sum().backward()
    # a spike at step k would end the wait k..2; without the one at 2 it would last two steps longer
    assert spikes.grad is not None
    assert spikes.grad.flatten().tolist() == [-2, -1, -2, 0, 0]


def test_values() -> None:
    output, target = torch.rand(4, 5, 3), torch.tensor([0, 2, 1, 1, 0])
    picked = target[:, None]

    def cross_entropy(logits: Tensor) -> Tensor:
        return -(logits - logits.logsumexp(-1, keepdim=True)).gather(1, picked).mean()

    close = torch.testing.assert_close
    close(RateCrossEntropy(3.0)(output, target), cross_entropy(3 * output.sum(0) / 4))
    close(CountCrossEntropy()(output, target), cross_entropy(output.sum(0)))
    close(StepCrossEntropy()(output, target), torch.stack([cross_entropy(x) for x in output]).mean())
    close(MembraneCrossEntropy()(output, target), cross_entropy(output.max(0).values))
    close(LatencyCrossEntropy(2.0)(output, target), cross_entropy(-2 * latency(output)))
    wanted = torch.full((5, 3), 0.1).scatter(1, picked, 0.8)
    close(RateMSE(0.8, 0.1)(output, target), ((output.mean(0) - wanted) ** 2).mean())


def test_step_cross_entropy_gives_each_step_the_error_of_that_step_alone() -> None:
    output, target = torch.randn(4, 5, 3, requires_grad=True), torch.randint(3, (5,))
    gradient = torch.autograd.grad(StepCrossEntropy()(output, target), output)[0]
    expected = (output.softmax(-1) - functional.one_hot(target, 3)) / (4 * 5)
    torch.testing.assert_close(gradient, expected)


def test_latency_loss_teaches_a_neuron_to_fire_first() -> None:
    torch.manual_seed(0)
    layer, cell = nn.Linear(4, 2), LIF(0.9)
    x, target = torch.rand(1, 8, 4).expand(10, 8, 4), torch.zeros(8, dtype=torch.long)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        LatencyCrossEntropy()(cell(layer(x))[0], target).backward()
        optimizer.step()
    first, other = latency(cell(layer(x))[0]).mean(0).tolist()
    assert first + 2 < other


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(
    ("output", "target", "error", "message"),
    [
        ((4, 5), (5,), ShapeError, r"got output \[4, 5\]"),
        ((4, 5, 3), (4,), ShapeError, r"target \[4\], expected \[time, batch, classes\] and \[batch\]"),
        ((0, 5, 3), (5,), ShapeError, "expected"),
    ],
)
def test_shapes_are_checked(
    kind: type[nn.Module], output: tuple[int], target: tuple[int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        kind()(torch.zeros(output), torch.zeros(target, dtype=torch.long))


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("label", [-1, 3])
def test_labels_are_checked(kind: type[nn.Module], label: int) -> None:
    with pytest.raises(LabelError, match=f"label {label} is no class; 3 classes, 0 to 2"):
        kind()(torch.zeros(4, 5, 3), torch.tensor([0, 1, 2, label, 0]))


@pytest.mark.parametrize("kind", [RateCrossEntropy, LatencyCrossEntropy])
def test_scale_is_checked(kind: type[nn.Module]) -> None:
    with pytest.raises(ConfigError, match="scale: got 0"):
        kind(scale=0)  # type: ignore[call-arg]
