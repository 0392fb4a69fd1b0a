"""Orthogonal weights modification.

Zeng, Chen, Cui, Yu: Continual learning of context-dependent processing in neural networks. Nature Machine Intelligence
2019. arXiv:1810.01256
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from neuropil.continual.projection import GradientProjection
from neuropil.data.batching import batches
from neuropil.data.task import Task
from neuropil.errors import ConfigError
from neuropil.kernels.processes import from_first_process
from neuropil.nn.presynaptic import observe, rows
from neuropil.training.evaluating import evaluating
from neuropil.training.plugin import Gradients


def extend_projector(projector: Tensor, activity: Tensor, damping: float) -> Tensor:
    """`projector` `[n, n]` made to remove the directions of `activity` `[rows, n]` as well.

    Recursive least squares for a block of rows X: `P - P X^T (damping I + X P X^T)^-1 X P`. From the identity on,
    whatever the blocks, it is `damping (damping I + sum X^T X)^-1`: directions with an activity well above
    `damping` are removed, others are kept.

    >>> extend_projector(torch.eye(2), torch.tensor([[1.0, 0.0]]), damping=0.25)
    tensor([[0.2000, 0.0000],
            [0.0000, 1.0000]])
    """
    p, x = projector.double(), activity.double()
    seen = x @ p
    inner = seen @ x.mT + damping * torch.eye(len(x), dtype=p.dtype, device=p.device)
    p = p - seen.mT @ torch.linalg.solve(inner, seen)
    symmetric: Tensor = (p + p.mT) / 2  # against rounding
    return symmetric.to(projector)


class OWM(GradientProjection):
    """Orthogonal weights modification: learning takes place across the activity of earlier tasks.

    After each task the mean activity of every `average` training samples enters the layer's projector by
    recursive least squares, and weight gradients of later tasks are multiplied by it. Unlike a basis of fixed
    size it removes strong directions more than weak ones; `damping` says what is strong. Needs SGD without
    momentum and weight decay.

    Args:
        model: whose linear and convolutional layers are protected.
        damping: squared activity below which a direction is hardly protected, above 0.
        samples: training samples of each task whose activity enters.
        average: samples whose activity is averaged first; the published method takes a batch. With 1 every sample
            enters.
        exclude: layers that learn freely, for instance per-task heads.
        generator: chooses the samples.

    In a loop of your own, pass gradients through `on_gradients` and call `after_task(task)`, or `protect(x)` with
    inputs of the finished task.

    >>> net = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> owm = OWM(net, damping=1e-3, average=1)
    >>> x = torch.randn(5, 20)
    >>> owm.protect(x)
    >>> bool((x @ owm.projectors["0"]).norm() < 0.01 * x.norm())
    True
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        damping: float = 1e-2,
        samples: int = 2048,
        average: int = 8,
        exclude: Iterable[str] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model, exclude=exclude)
        if not damping > 0:
            raise ConfigError(f"OWM.damping: got {damping}, expected more than 0")
        for name, value in (("samples", samples), ("average", average)):
            if value < 1:
                raise ConfigError(f"OWM.{name}: got {value}, expected at least 1")
        self.model, self.damping, self.samples, self.average = model, damping, samples, average
        self.generator = generator
        self._projectors: dict[str, Tensor] = {}

    @property
    def projectors(self) -> Mapping[str, Tensor]:
        """Symmetric projectors `[fan_in, fan_in]` by layer name; a layer without one learns freely as yet."""
        return self._projectors

    def on_gradients(self, gradients: Gradients) -> Gradients:
        """Multiply every weight gradient by its layer's projector."""
        return self.confine(gradients)

    def confine(self, gradients: Gradients) -> Gradients:
        """Gradients times their layers' projectors."""
        changed = dict(gradients)
        for name, projector in self._projectors.items():
            parameter = self._names[name]
            if parameter in changed:
                gradient = changed[parameter]
                changed[parameter] = (gradient.flatten(1) @ projector).view_as(gradient)
        return changed

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
        """Let the activity that inputs `x` `[n, ...]` evoke enter the projectors; counts as the end of a task."""
        seen: dict[str, list[Tensor]] = {name: [] for name in self.layers}
        with evaluating(self.model), ExitStack() as hooks:
            for name, layer in self.layers.items():
                hooks.callback(observe(layer, seen[name].append).remove)
            for part in x.split(self.average):
                before = {name: len(kept) for name, kept in seen.items()}
                self.model(part)
                for name, kept in seen.items():
                    features = 1 if isinstance(self.layers[name], nn.Linear) else 3
                    kept[before[name] :] = [_mean(activity, features) for activity in kept[before[name] :]]
        for name, layer in self.layers.items():
            if seen[name]:
                start = torch.eye(self.inputs(name), dtype=layer.weight.dtype)
                projector = self._projectors.get(name, start).to(layer.weight)
                for block in rows(layer, torch.cat(seen[name])).split(512):
                    projector = extend_projector(projector, block, self.damping)
                self._projectors[name] = projector
        super().after_task(None)

    def state_dict(self) -> dict[str, Any]:
        """Projectors and progress."""
        generator = None if self.generator is None else self.generator.get_state()
        return {
            "tasks_learned": self.tasks_learned, "projectors": dict(self._projectors), "generator": generator
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.tasks_learned = state["tasks_learned"]
        self._projectors = {
            name: value.to(self.layers[name].weight) for name, value in state["projectors"].items()
        }
        if self.generator is not None and state["generator"] is not None:
            self.generator.set_state(state["generator"])
        if self.tasks_learned:
            self.freeze_shared()


def _mean(activity: Tensor, features: int) -> Tensor:
    """Mean `[1, ...features]` over all leading dimensions: samples, time, tokens."""
    return activity.reshape(-1, *activity.shape[-features:]).mean(0, keepdim=True)
