"""Helpers for the tests of quadratic penalties."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def move(model: nn.Module, size: float = 0.3) -> Tensors:
    """Change all weights; returns them."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=size)
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def random_stiffness(model: nn.Module) -> Tensors:
    return {name: torch.rand_like(p) for name, p in model.named_parameters()}


def quadratic(model: nn.Module, springs: list[tuple[Tensors, Tensors]]) -> Tensor:
    """`sum k (w - a)^2` over springs of (stiffness, anchor)."""
    return sum(
        (stiffness[name] * (p - anchor[name]) ** 2).sum()
        for stiffness, anchor in springs
        for name, p in model.named_parameters()
    )


def gradient(value: Tensor, model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(value, list(model.parameters())))
