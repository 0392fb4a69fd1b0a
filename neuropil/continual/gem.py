"""Gradient episodic memory.

Lopez-Paz, Ranzato: Gradient Episodic Memory for Continual Learning. NeurIPS 2017. arXiv:1706.08840
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from neuropil.continual.agem import AGEM
from neuropil.data.task import Batch
from neuropil.errors import ConfigError
from neuropil.training.plugin import Gradients


class GEM(AGEM):
    """GEM: a step raises the loss on no single earlier task's remembered samples.

    With the gradient `r_k` of every earlier task k, the step takes the vector nearest to g whose product with
    every `r_k` is not negative: `g + sum_k v_k r_k`, v the solution of a small quadratic program with
    `v_k >= margin`. Each step costs a forward and a backward pass for every earlier task, on at most `batch_size`
    of its samples.

    Args:
        margin: pull towards earlier tasks even where nothing conflicts, at least 0 (published: 0.5).

    >>> net = nn.Linear(3, 2)
    >>> gem = GEM(net, margin=0.0)
    >>> gem.references = [{"weight": torch.eye(2, 3)}, {"weight": torch.eye(2, 3).flip(0)}]
    >>> gem.on_gradients({"weight": torch.tensor([[-1.0, 2.0, 0.0], [2.0, -1.0, 0.0]])})["weight"]
    tensor([[0., 2., 0.],
            [2., 0., 0.]])
    """

    def __init__(self, model: nn.Module, *, margin: float = 0.5, **settings: Any) -> None:
        super().__init__(model, **settings)
        if not margin >= 0:
            raise ConfigError(f"GEM.margin: got {margin}, expected at least 0")
        self.margin = margin

    def _remembered(self) -> list[Batch]:
        found = []
        for task in range(self.buffer.tasks if len(self.buffer) else 0):
            mine = self.buffer.positions(task)
            order = torch.randperm(len(mine), generator=self.buffer.generator)[: self.batch_size]
            found += [self.buffer.select(mine[order])] if len(mine) else []
        return found

    def on_gradients(self, gradients: Gradients) -> Gradients:
        """The nearest gradients that raise the loss on no earlier task."""
        if not self.references:
            return gradients
        shared = [name for name in gradients if all(name in r for r in self.references)]
        rows, directions = (
            torch.stack([torch.cat([each[name].flatten() for name in shared]) for each in found])
            for found in (self.references, self.directions())
        )
        step = torch.cat([gradients[name].flatten() for name in shared])
        against = rows @ step
        if bool((against >= 0).all()):
            return gradients
        gram = (rows @ directions.mT).double().cpu().numpy()
        v = self.margin + nonnegative_minimum(
            gram, against.double().cpu().numpy() + self.margin * gram.sum(1)
        )
        step = step + torch.from_numpy(v).to(rows) @ directions
        sizes = [gradients[name].numel() for name in shared]
        parts = zip(shared, step.split(sizes), strict=True)
        return gradients | {name: part.view_as(gradients[name]) for name, part in parts}


def nonnegative_minimum(gram: np.ndarray[Any, Any], linear: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The `v >= 0` that minimises `v^T gram v / 2 + linear^T v`, for few variables: an active-set method.

    Lawson, Hanson: Solving Least Squares Problems. 1974.

    >>> nonnegative_minimum(np.eye(2), np.array([-2.0, 1.0])).tolist()
    [2.0, 0.0]
    """
    n = len(linear)
    v, free = np.zeros(n), np.zeros(n, dtype=bool)
    tolerance = 1e-12 * max(1.0, float(np.abs(linear).max()))
    for _ in range(3 * n):
        downhill = -(gram @ v + linear)
        downhill[free] = -np.inf
        best = int(downhill.argmax())
        if downhill[best] <= tolerance:
            break
        free[best] = True
        while free.any():
            wanted = np.zeros(n)
            wanted[free] = np.linalg.lstsq(gram[np.ix_(free, free)], -linear[free], rcond=None)[0]
            stuck = free & (wanted <= 0)
            if not stuck.any():
                v = wanted
                break
            share = (v[stuck] / np.maximum(v[stuck] - wanted[stuck], 1e-300)).min()
            v = v + share * (wanted - v)
            free &= v > 1e-15
            v[~free] = 0.0
    return v
