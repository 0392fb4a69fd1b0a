"""The lateral circuit of HLOP: subspace neurons that learn by a Hebbian and anti-Hebbian rule.

Xiao, Meng, Zhang, He, Lin: Hebbian Learning based Orthogonal Projection for Continual Learning of Spiking Neural
Networks. ICLR 2024. arXiv:2402.11984
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from neuropil.errors import ConfigError, NonFiniteError, ShapeError, SubspaceError
from neuropil.kernels.processes import from_first_process, sum_over_processes
from neuropil.kernels.subspace import oja_subspace, project

_RATE = 2.0  # Hebbian rate times the activity's mean squared norm: stable whatever the scale of the activity


class HebbianSubspace:
    """A lateral circuit whose weights H learn the principal subspace of the activity it sees.

    Rows of H are subspace neurons. Those learned in earlier tasks are frozen; new ones start orthogonal to them
    and are driven by what the frozen ones leave of the activity. Oja's rule then keeps them orthogonal, so H has
    orthonormal rows, as a projection needs. (The published circuit starts them anywhere and drives them by the
    whole activity. The fixed points are the same, but neurons that have not converged by the end of a task
    leave H far from orthonormal, and protection fails.) The activity is not centred: protecting it protects `W x`.

    Args:
        in_features: length N of an activity vector.
        lr: Hebbian rate; `None` takes 2 / (mean squared norm of what the frozen neurons leave, the largest met
            in this task), which suits activity of any scale.
        iterations: Hebbian steps per batch.
        momentum: of the exponential moving average that smooths the Hebbian change.
        levels: `None` for the linear circuit, or the number of lateral time steps of the spiking circuit, whose
            drive is a signed rate code.

    >>> x = torch.randn(256, 2) @ torch.randn(2, 10)   # activity in two of ten dimensions
    >>> circuit = HebbianSubspace(10, generator=torch.Generator().manual_seed(0))
    >>> circuit.grow(2)
    >>> for _ in range(300):
    ...     circuit.update(x)
    >>> circuit.freeze()
    >>> bool((x - circuit.project(x)).norm() < 0.05 * x.norm())
    True
    """

    def __init__(
        self,
        in_features: int,
        *,
        lr: float | None = None,
        iterations: int = 5,
        momentum: float = 0.9,
        levels: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if lr is not None and not lr > 0:
            raise ConfigError(f"HebbianSubspace.lr: got {lr}, expected a positive rate or None")
        if levels is not None and levels < 1:
            raise ConfigError(
                f"HebbianSubspace.levels: got {levels}, expected at least 1 lateral step or None"
            )
        self.in_features = in_features
        self.lr, self.iterations, self.momentum, self.levels = lr, iterations, momentum, levels
        self.generator = generator
        self.frozen = torch.zeros(0, in_features)  # [M_old, N]
        self.growing = torch.zeros(0, in_features)  # [m, N]
        self.velocity = torch.zeros(0, in_features)
        self._energy = 0.0  # largest mean squared norm of the activity to learn in this task

    @property
    def directions(self) -> Tensor:
        """H `[M, N]`, frozen rows first."""
        return torch.cat([self.frozen, self.growing])

    @property
    def has_met_activity(self) -> bool:
        """Whether the neurons that learn, if there are any, have been shown something since they grew."""
        return self._energy > 0 or not len(self.growing)

    def grow(self, count: int) -> None:
        """Append `count` subspace neurons with random orthonormal weights; they learn, the others stay."""
        if len(self.frozen) + len(self.growing) + count > self.in_features:
            raise SubspaceError(
                f"subspace of {len(self.frozen) + len(self.growing)} + {count} directions exceeds the layer's "
                f"{self.in_features} inputs"
            )
        self.growing = torch.cat([self.growing, self._fresh(count)])
        self.velocity = torch.zeros_like(self.growing)
        self._energy = 0.0

    def _fresh(self, count: int) -> Tensor:
        """Random orthonormal rows, orthogonal to all there are."""
        drawn = torch.randn(count, self.in_features, generator=self.generator).to(self.frozen)
        for _ in range(2):  # the second pass removes what rounding left
            drawn = drawn - project(drawn, self.directions)
            drawn = torch.linalg.qr(drawn.mT)[0].mT.contiguous()
        return from_first_process(drawn)

    def freeze(self) -> None:
        """Make every neuron part of the protected subspace."""
        self.frozen = self.directions
        self.growing = self.growing[:0]
        self.velocity = self.velocity[:0]

    def project(self, x: Tensor) -> Tensor:
        """Part of `x` `[rows, N]` in the protected subspace; neurons that still learn take no part."""
        return project(x, self.frozen, self.levels)

    def update(self, x: Tensor, residual: Tensor | None = None) -> None:
        """Hebbian steps on activity `x` `[rows, N]`; `residual` is `x - project(x)` where that is at hand."""
        if x.shape[-1] != self.in_features:
            raise ShapeError(
                f"HebbianSubspace: activity has {x.shape[-1]} features, expected {self.in_features}"
            )
        if not len(self.growing):
            return
        if residual is None:
            residual = x - self.project(x) if len(self.frozen) else x
        sums = torch.stack([residual.square().sum(), residual.new_tensor(float(len(residual)))])
        total, count = sum_over_processes(sums).tolist()
        if not math.isfinite(total):
            raise NonFiniteError(
                "HebbianSubspace: the activity holds NaN or infinity, expected finite numbers"
            )
        if not count:
            return
        self._energy = max(self._energy, total / count, 1e-12)
        self.growing, self.velocity = oja_subspace(
            self.growing, self.velocity, residual, lr=self.lr or _RATE / self._energy,
            momentum=self.momentum, iterations=self.iterations, levels=self.levels,
        )  # fmt: skip

    def to(self, like: Tensor) -> None:
        """Move to the dtype and device of `like`."""
        self.frozen, self.growing, self.velocity = (
            t.to(like.device, like.dtype) for t in (self.frozen, self.growing, self.velocity)
        )

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers to go on from."""
        return {
            "frozen": self.frozen,
            "growing": self.growing,
            "velocity": self.velocity,
            "energy": self._energy,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.frozen, self.growing, self.velocity = state["frozen"], state["growing"], state["velocity"]
        self._energy = state["energy"]
