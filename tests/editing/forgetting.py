"""What tests of unlearning share: samples of four noisy prototypes, one of them to be forgotten."""

from __future__ import annotations

import torch
from torch.utils.data import TensorDataset

from tests.training.worlds import CLASSES, FEATURES

FORGET = 1


def samples(count: int = 96, seed: int = 3) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    prototypes = 2 * torch.rand(CLASSES, FEATURES, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(count) % CLASSES
    return TensorDataset(prototypes[labels] + 0.3 * torch.randn(count, FEATURES, generator=generator), labels)


def part(data: TensorDataset, forget: bool, label: int = FORGET) -> TensorDataset:
    """The class to forget, or the rest."""
    x, y = data.tensors
    chosen = (y == label) == forget
    return TensorDataset(x[chosen], y[chosen])


def gone() -> TensorDataset:
    return part(samples(), True)


def kept() -> TensorDataset:
    return part(samples(), False)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
