"""Experience replay: a small memory of earlier samples, learned beside the new ones.

Robins: Catastrophic forgetting, rehearsal and pseudorehearsal. Connection Science 1995.
Chaudhry et al.: On tiny episodic memories in continual learning. 2019. arXiv:1902.10486
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Optimizer

from neuropil.continual.buffers import PerClassBuffer, ReplayBuffer, allowed_answers
from neuropil.data.task import Batch, Task
from neuropil.errors import ConfigError
from neuropil.training.allowed import restrict
from neuropil.training.plugin import Plugin

Schedule = Callable[[int], Sequence[float]]  # number of earlier tasks -> weight of each, the oldest first


def buffer_of(
    per_class: int | None, buffer: ReplayBuffer | None, generator: torch.Generator | None
) -> ReplayBuffer:
    """The buffer given, or one with `per_class` samples a class and task (50 unless told otherwise)."""
    if buffer is None:
        return PerClassBuffer(50 if per_class is None else per_class, generator=generator)
    if per_class is not None or generator is not None:
        raise ConfigError(
            "replay: a buffer brings its size and generator; give per_class and generator to it"
        )
    return buffer


class Replay(Plugin):
    """Experience replay: every batch is joined by as many remembered samples of earlier tasks.

    Args:
        per_class: samples remembered of each class of each task, 50 unless a buffer is given.
        buffer: what is remembered instead, for instance `ReservoirBuffer(500)`.
        batch_size: remembered samples per batch; `None` draws as many as there are new ones.
        schedule: `earlier tasks -> weight of each`, the oldest first: from which tasks to draw how often; `None`
            draws all remembered samples alike.
        online: remember samples batch by batch as they are met, as streams without boundaries need it, instead of
            at the end of a task.
        generator: chooses what is kept and drawn, where no buffer is given.

    In a loop of your own pass batches through `before_batch` and call `after_task(task)`.

    >>> replay = Replay(per_class=5)
    >>> replay.buffer.add(torch.randn(20, 3), torch.arange(20) % 2, None)
    >>> replay.before_batch(Batch(torch.randn(8, 3), torch.zeros(8).long())).inputs.shape
    torch.Size([16, 3])
    """

    def __init__(
        self,
        per_class: int | None = None,
        *,
        buffer: ReplayBuffer | None = None,
        batch_size: int | None = None,
        schedule: Schedule | None = None,
        online: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        self.buffer = buffer_of(per_class, buffer, generator)
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"Replay.batch_size: got {batch_size}, expected at least 1")
        self.batch_size, self.schedule, self.online = batch_size, schedule, online
        self._task = 0  # number of the task that is being learned, where samples are remembered online

    def before_batch(self, batch: Batch) -> Batch:
        """Join remembered samples to the batch."""
        joined = self._join(batch) if len(self.buffer) else batch
        if self.online:
            classes = batch.classes if not isinstance(batch.classes, Tensor) else None
            self.buffer.add(batch.inputs, batch.targets, classes, task=min(self._task, self.buffer.tasks))
        return joined

    def _join(self, batch: Batch) -> Batch:
        count = self.batch_size or len(batch.targets)
        if self.schedule is None:
            old = self.buffer.draw(count)
        else:
            old = self.buffer.draw_by_task(self.schedule(self.buffer.tasks), count)
        return Batch(
            torch.cat([batch.inputs, old.inputs.to(batch.inputs)]),
            torch.cat([batch.targets, old.targets.to(batch.targets)]),
            _join_classes(batch, old),
        )

    def after_task(self, task: Task) -> None:
        """Remember samples of the finished task."""
        if self.online:
            self._task = self.buffer.tasks
        else:
            self.buffer.add_task(task)

    def state_dict(self) -> dict[str, Any]:
        """The buffer."""
        return {**self.buffer.state_dict(), "task": self._task}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.buffer.load_state_dict(state)
        self._task = state["task"]


def _join_classes(new: Batch, old: Batch) -> Tensor | None:
    """Mask `[batch, outputs]` of the answers allowed for new and remembered samples; None when all are for some."""
    if new.classes is None or not isinstance(old.classes, Tensor):
        return None
    here = (
        new.classes if isinstance(new.classes, Tensor) else allowed_answers([new.classes] * len(new.targets))
    )
    if here is None:
        return None
    outputs = max(here.shape[1], old.classes.shape[1])
    return torch.cat(
        [functional.pad(mask, (0, outputs - mask.shape[1])) for mask in (here, old.classes.to(here.device))]
    )


class Rehearsal(Plugin):
    """Replay between tasks: after each task, a few passes over remembered samples of all tasks so far.

    HLOP's published replay option: 50 samples a class, one epoch, rate 0.01, with projection and Hebbian learning
    at rest. List it after the plugin that protects.

    Args:
        per_class: samples remembered of each class of each task, 50 unless a buffer is given.
        buffer: what is remembered instead.
        epochs: passes over the memory.
        lr: rate of plain SGD.
        batch_size: samples a step.
        generator: chooses what is kept and in what order it is learned, where no buffer is given.

    >>> Rehearsal(per_class=50, lr=0.01).epochs
    1
    """

    def __init__(
        self, per_class: int | None = None, *, buffer: ReplayBuffer | None = None, epochs: int = 1, lr: float = 0.01,
        batch_size: int = 64, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        self.buffer = buffer_of(per_class, buffer, generator)
        self.epochs, self.lr, self.batch_size = epochs, lr, batch_size
        self._model: nn.Module | None = None

    def before_fit(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        """Note which model to rehearse."""
        self._model = model

    def after_task(self, task: Task) -> None:
        """Remember samples of the finished task, then learn all remembered ones once more."""
        if self._model is None:
            raise ConfigError("Rehearsal: call before_fit(model, optimizer) first")
        is_first = not len(self.buffer)
        self.buffer.add_task(task)
        if is_first:
            return
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        optimizer, device = SGD(parameters, lr=self.lr), parameters[0].device
        for _ in range(self.epochs):
            order = torch.randperm(len(self.buffer), generator=self.buffer.generator)
            for index in order.split(self.batch_size):
                batch = self.buffer.select(index)
                optimizer.zero_grad()
                logits = restrict(self._model(batch.inputs.to(device)), batch.classes)
                targets = batch.targets.to(device)
                if logits.dim() > 2:  # a model that answers at every step
                    logits, targets = logits.flatten(0, -2), targets.repeat(len(logits))
                functional.cross_entropy(logits, targets).backward()
                optimizer.step()
        optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """The buffer."""
        return self.buffer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.buffer.load_state_dict(state)
