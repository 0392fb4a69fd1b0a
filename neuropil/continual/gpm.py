"""Gradient projection memory.

Saha, Garg, Roy: Gradient Projection Memory for Continual Learning. ICLR 2021. arXiv:2103.09762
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from neuropil.continual.projection import MOST_PROTECTED, GradientProjection, check_sizes
from neuropil.data.batching import batches
from neuropil.data.task import Task
from neuropil.errors import ConfigError, SubspaceError
from neuropil.kernels.processes import from_first_process
from neuropil.nn.presynaptic import observe, rows
from neuropil.training.evaluating import evaluating
from neuropil.training.plugin import Gradients


def extend_basis(
    basis: Tensor, activity: Tensor, *, energy: float | None = None, size: int | None = None
) -> Tensor:
    """`basis` `[m, n]` with the principal directions of what `activity` `[rows, n]` adds to it.

    Either as many as make basis and new directions together hold a share `energy` of the activity's squared norm,
    or exactly `size`. At most 0.85 of the n inputs are protected.

    >>> extend_basis(torch.zeros(0, 4), torch.eye(4)[:2] * torch.tensor([[3.0], [1.0]]), energy=0.8)
    tensor([[1., 0., 0., 0.]])
    """
    known, activity = basis.double(), activity.double()
    residual = activity - (activity @ known.mT) @ known
    moment, vectors = torch.linalg.eigh(residual.mT @ residual)  # n x n: rows may be many (convolutions)
    moment, directions = moment.flip(0).clamp_min(0), vectors.flip(1).mT
    total = activity.square().sum()
    if size is None:
        held = total - moment.sum() + torch.cat([moment.new_zeros(1), moment.cumsum(0)])
        size = int((held < (energy or 1.0) * total).sum())
    room = int(MOST_PROTECTED * activity.shape[1]) - len(basis)
    present = int((moment > 1e-10 * total.clamp_min(1e-30)).sum())  # the others are rounding
    chosen = directions[: max(0, min(size, room, present))]
    chosen = chosen - (chosen @ known.mT) @ known  # a basis in single precision left a little of itself
    chosen = chosen / chosen.norm(dim=1, keepdim=True)
    chosen = chosen * torch.where(
        chosen.sum(1, keepdim=True) < 0, -1.0, 1.0
    )  # a sign that every run agrees on
    return torch.cat([basis, chosen.to(basis)])


class GPM(GradientProjection):
    """Gradient projection memory: protects principal directions of each layer's activity, found by SVD.

    After each task the activity of `samples` training samples is collected for every layer and the basis of
    protected directions is extended until it holds a share `energy` of the activity (a little more at each task,
    as published), or by fixed `sizes`. Weight gradients of later tasks are projected to be orthogonal to it.
    Needs SGD without momentum and weight decay.

    Args:
        model: whose linear and convolutional layers are protected.
        energy: share of the activity's energy to hold after the first task, in (0, 1].
        energy_step: added to it at each further task.
        sizes: directions to add at each task, by layer name, instead of an energy.
        samples: training samples whose activity is collected.
        exclude: layers that learn freely, for instance per-task heads.
        generator: chooses the samples.

    In a loop of your own, pass gradients through `on_gradients` and call `after_task(task)`, or
    `protect(model, x)` with inputs of the finished task.

    >>> net = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> gpm = GPM(net, energy=0.95)
    >>> gpm.protect(torch.randn(5, 20))
    >>> gpm.bases["0"].shape
    torch.Size([5, 20])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        energy: float = 0.95,
        energy_step: float = 0.003,
        sizes: Mapping[str, Sequence[int]] | None = None,
        samples: int = 256,
        exclude: Iterable[str] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model, exclude=exclude)
        if not 0 < energy <= 1:
            raise ConfigError(f"GPM.energy: got {energy}, expected a share in (0, 1]")
        self.model, self.energy, self.energy_step = model, energy, energy_step
        self.samples, self.generator = samples, generator
        self.sizes = None if sizes is None else self._checked(sizes)
        self._bases = {
            name: layer.weight.new_zeros(0, self.inputs(name)).detach() for name, layer in self.layers.items()
        }

    def _checked(self, sizes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
        self.check_names("sizes", sizes)
        for name in self.layers:
            if name not in sizes:
                raise ConfigError(f"GPM.sizes: none given for layer {name!r}; give every protected layer's")
        return {name: check_sizes(name, self.inputs(name), sizes[name]) for name in self.layers}

    @property
    def bases(self) -> Mapping[str, Tensor]:
        """Protected directions `[m, fan_in]` by layer name, with orthonormal rows."""
        return self._bases

    def before_task(self, task: Task | None = None) -> None:
        """Refuse a task that `sizes` say nothing of; hold still what would bypass the projection."""
        for name in self.layers:
            self._amount(name)
        super().before_task(task)

    def on_gradients(self, gradients: Gradients) -> Gradients:
        """Remove the protected directions from every weight gradient."""
        return self.remove(gradients, self.layers)

    def after_task(self, task: Task | None = None) -> None:
        """Protect the activity of the task's training samples."""
        if task is not None:
            seed = int(from_first_process(torch.randint(2**31, (), generator=self.generator)))
            batch = next(iter(batches(task.train, self.samples, seed=seed, epoch=0)))
            self.protect(batch.inputs.to(next(self.model.parameters()).device))
            return
        super().after_task(task)

    @torch.no_grad()
    def protect(self, x: Tensor) -> None:
        """Extend the bases by the activity that inputs `x` evoke; counts as the end of a task."""
        seen: dict[str, list[Tensor]] = {name: [] for name in self.layers}
        amounts = {name: self._amount(name) for name in self.layers}
        with evaluating(self.model), ExitStack() as hooks:
            for name, layer in self.layers.items():
                hooks.callback(observe(layer, seen[name].append).remove)
            self.model(x)
        for name, layer in self.layers.items():
            if not seen[name]:
                continue
            activity = torch.cat([rows(layer, part) for part in seen[name]])
            self._bases[name] = extend_basis(self._bases[name].to(layer.weight), activity, **amounts[name])
        super().after_task(None)

    def _amount(self, name: str) -> dict[str, Any]:
        if self.sizes is None:
            return {"energy": min(1.0, self.energy + self.energy_step * self.tasks_learned)}
        if self.tasks_learned >= len(self.sizes[name]):
            raise SubspaceError(
                f"layer {name!r}: task {self.tasks_learned + 1} of sizes made for {len(self.sizes[name])}"
            )
        return {"size": self.sizes[name][self.tasks_learned]}

    def state_dict(self) -> dict[str, Any]:
        """Bases and progress."""
        generator = None if self.generator is None else self.generator.get_state()
        return {"tasks_learned": self.tasks_learned, "bases": dict(self._bases), "generator": generator}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.tasks_learned = state["tasks_learned"]
        self._bases = {name: state["bases"][name].to(layer.weight) for name, layer in self.layers.items()}
        if self.generator is not None and state["generator"] is not None:
            self.generator.set_state(state["generator"])
        if self.tasks_learned:
            self.freeze_shared()
