"""Models that test-time learners adapt, for their tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuropil.nn import LIF, RateReadout, Sequential


class Convolutional(nn.Module):
    """A model as users write them, with batch normalisation, dropout and a call of relu."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.inner = nn.Conv2d(6, 5, 3, stride=2), nn.BatchNorm2d(5)
        self.dropout, self.leave = nn.Dropout(0.5), nn.Linear(45, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.first(x)))
        return self.leave(self.dropout(torch.relu(self.inner(self.second(h)))).flatten(1))


def convolutional() -> nn.Module:
    return Convolutional()


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))


def spiking() -> nn.Module:
    return Sequential(
        nn.Linear(64, 20), nn.BatchNorm1d(20), LIF(), nn.Linear(20, 4), RateReadout(), time_steps=5
    )


def images(count: int = 40) -> Tensor:
    return torch.rand(count, 1, 8, 8) * 0.5 + 0.3


def inputs(model: nn.Module, count: int = 40) -> Tensor:
    return images(count) if isinstance(model, Convolutional) else images(count).flatten(1)
