from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from neuropil.training import gradient_norms, per_sample_gradients
from neuropil.training.evaluating import evaluating
from tests.training.worlds import CLASSES, FEATURES, MODELS


def data(count: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(count, FEATURES, generator=torch.Generator().manual_seed(1)), torch.arange(
        count
    ) % CLASSES


@pytest.mark.parametrize("network", MODELS)
def test_each_samples_gradient_is_backpropagations(network) -> None:
    model, (x, y) = network().train(), data()
    chunks = list(per_sample_gradients(model, functional.cross_entropy, x, y, batch_size=4))
    assert [len(next(iter(chunk.values()))) for chunk in chunks] == [4, 4, 1]
    assert model.training and all(p.grad is None for p in model.parameters())
    together = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
    norms = []
    with evaluating(model):
        for row in range(len(x)):
            model.zero_grad()
            functional.cross_entropy(model(x[row : row + 1]), y[row : row + 1]).backward()
            for name, parameter in model.named_parameters():
                expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                torch.testing.assert_close(together[name][row], expected)
            norms.append(
                torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
            )
    model.zero_grad()
    torch.testing.assert_close(
        gradient_norms(model, functional.cross_entropy, x, y, batch_size=5), torch.stack(norms)
    )


def test_frozen_parameters_have_none_and_their_sum_is_the_batchs_gradient() -> None:
    model, (x, y) = nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, CLASSES)), data()
    model[0].requires_grad_(False)
    with torch.no_grad():  # a caller's mode does not matter
        (chunk,) = per_sample_gradients(model, functional.cross_entropy, x, y)
    assert set(chunk) == {"2.weight", "2.bias"}
    functional.cross_entropy(model(x), y, reduction="sum").backward()
    for name, gradients in chunk.items():
        torch.testing.assert_close(gradients.sum(0), model.get_parameter(name).grad)


class Twice(nn.Module):
    """One linear layer, used on every token and again: its gradient is a sum of several errors times inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x.view(-1, 2, 6)))).mean(1)


class TwoUsesOneCall(nn.Module):
    """Two layers of which one is called twice and the other not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(FEATURES, FEATURES), nn.Linear(1, 1)

    def forward(self, x):
        return self.one(torch.tanh(self.one(x)))


@pytest.mark.parametrize("make", [Twice, TwoUsesOneCall, lambda: nn.Linear(FEATURES, CLASSES, bias=False)])
def test_norms_are_those_of_the_gradients_where_the_short_cut_does_not_hold(make) -> None:
    model, (x, y) = make(), data()
    gradients = per_sample_gradients(model, functional.cross_entropy, x, y % 4)
    expected = [
        sum(g[i].square().sum() for g in chunk.values()) ** 0.5 for chunk in gradients for i in range(9)
    ]
    found = gradient_norms(model, functional.cross_entropy, x, y % 4, batch_size=4)
    torch.testing.assert_close(found, torch.stack(expected))
    assert not any(module._forward_hooks for module in model.modules())
