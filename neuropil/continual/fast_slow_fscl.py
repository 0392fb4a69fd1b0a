"""Fast and slow weights for few-shot continual learning.

Wang, Li, Zhong, Zhu: Few-shot Continual Learning: a Brain-inspired Approach. 2021. arXiv:2104.09034

A reconstruction: the abstract names the parts (fast weights that learn each task under synaptic consolidation, slow
weights that follow them in two steps and generalise), the equations here are our reading of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from neuropil.continual.ewc import EWC
from neuropil.data.task import Task
from neuropil.errors import ConfigError, UnknownNameError, nearest
from neuropil.training.fisher import fisher_diagonal


class FastSlow(EWC):
    """Two sets of weights: fast ones learn a task and hold what earlier tasks need, slow ones move towards them.

    Fast weights are the model's own. They start each task at the slow weights and carry the penalty
    `strength / 2 * sum_i F_i (fast_i - slow_i)^2`, F the Fisher information summed over the tasks so far. When a task
    ends the slow weights become `slow + step (fast - slow)`. After the first task both are the same. Use the fast
    weights on classes that were learned, and the slow ones, within `slow_weights()`, for classes to come: they have
    not followed a few examples of one task all the way.

    In a loop of your own call `before_task()` and `after_task(task)` around each task, `on_loss` before `backward()`,
    and `after_step()` after the optimizer's step where `every` is set.

    Args:
        model: the model that is trained.
        step: share of the way that slow weights move to fast ones, in (0, 1].
        strength: weight of the penalty, at least 0; the loss is a mean over the batch, F a mean over samples.
        every: also move the slow weights after so many steps within a task and begin again from there, as Lookahead
            and Reptile do; None moves them when a task ends.
        samples: training samples of a finished task that F is estimated on.
        exclude: names of modules or parameters with fast weights alone, for instance heads.
        generator: draws samples and labels for the estimate.
        predict: `inputs -> logits`, when that is not `model(inputs)`.

    Raises:
        ConfigError: a setting out of range, or nothing is left to hold.
        UnknownNameError: a name in `exclude` is no part of the model.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> both = FastSlow(net, step=0.5, exclude=["2"])
    >>> both.consolidate({"0.bias": torch.ones(8)})        # as the first task ends
    >>> with torch.no_grad():
    ...     _ = net[0].bias.add_(1.0)                      # a second task moves the fast weights by 1
    >>> print(f"{(net[0].bias - both.slow['0.bias']).mean():.1f}")
    1.0
    >>> both.consolidate({"0.bias": torch.ones(8)})
    >>> print(f"{(net[0].bias - both.slow['0.bias']).mean():.1f}")
    0.5
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        step: float = 0.2,
        strength: float = 1000.0,
        every: int | None = None,
        samples: int = 256,
        exclude: Iterable[str] = (),
        generator: torch.Generator | None = None,
        predict: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(model, strength=strength, samples=samples, generator=generator, predict=predict)
        if not 0 < step <= 1:
            raise ConfigError(f"FastSlow.step: got {step}, expected a share in (0, 1]")
        if every is not None and every < 1:
            raise ConfigError(f"FastSlow.every: got {every}, expected at least 1 step, or None")
        self.step, self.every = step, every
        self.held = _held(model, tuple(exclude))
        self._steps = 0

    @property
    def slow(self) -> Mapping[str, Tensor]:
        """The slow weights by parameter name; empty before the first task has ended."""
        return self._anchor

    def before_task(self, task: Task | None = None) -> None:
        """Fast weights start at the slow ones."""
        self._steps = 0
        self._restart()

    def after_step(self) -> None:
        """Where `every` is set: now and then slow weights move, and fast ones begin again from them."""
        self._steps += 1
        if self.every is not None and self._anchor and self._steps % self.every == 0:
            self._follow()
            self._restart()

    def after_task(self, task: Task) -> None:
        """Estimate what the finished task needs, and let the slow weights follow."""
        fisher = fisher_diagonal(
            self.model, task.train, count=self.samples, classes=task.classes,
            generator=self.generator, predict=self.predict,
        )  # fmt: skip
        self.consolidate({name: fisher[name] for name in self.held if name in fisher})

    @contextmanager
    def slow_weights(self) -> Iterator[nn.Module]:
        """The model with slow weights inside, with its fast ones again afterwards."""
        fast = {name: self.model.get_parameter(name).detach().clone() for name in self._anchor}
        self._restart()
        try:
            yield self.model
        finally:
            self._put(fast)

    @torch.no_grad()
    def _follow(self) -> None:
        for name, slow in self._anchor.items():
            slow.lerp_(self.model.get_parameter(name), self.step)

    def _restart(self) -> None:
        self._put(self._anchor)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.model.get_parameter(name).copy_(value)

    def _merge(self, old: Tensor, anchor: Tensor, new: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
        return old + new, torch.lerp(anchor, here, self.step)

    def state_dict(self) -> dict[str, Any]:
        """Stiffness, slow weights, steps of the task under way and the generator's position."""
        return {**super().state_dict(), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self._anchor = {name: value.clone() for name, value in self._anchor.items()}
        self._steps = state["steps"]


def _held(model: nn.Module, exclude: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the parameters that have slow weights."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    for free in exclude:
        if not any(name == free or name.startswith(f"{free}.") for name in names):
            known = {name.rpartition(".")[0] for name in names} - {""}
            raise UnknownNameError(f"FastSlow.exclude: the model has no part {free!r}{nearest(free, known)}")
    held = tuple(n for n in names if not any(n == free or n.startswith(f"{free}.") for free in exclude))
    if not held:
        raise ConfigError(f"FastSlow.exclude: {list(exclude)} leaves no parameter to hold")
    return held
