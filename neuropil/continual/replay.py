"""Experience replay: a small memory of earlier samples, learned beside the new ones.

Robins: Catastrophic forgetting, rehearsal and pseudorehearsal. Connection Science 1995.
Chaudhry et al.: On tiny episodic memories in continual learning. 2019. arXiv:1902.10486
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Optimizer

from neuropil.data.batching import batches
from neuropil.data.task import Batch, Task
from neuropil.errors import ConfigError
from neuropil.training.allowed import class_mask, restrict
from neuropil.training.plugin import Plugin


class _Memory(NamedTuple):
    inputs: Tensor
    targets: Tensor
    classes: list[tuple[int, ...] | None]  # answers allowed, sample by sample


class ReplayBuffer:
    """Samples of finished tasks, `per_class` of every class of every task, chosen at random.

    >>> buffer = ReplayBuffer(per_class=1)
    >>> buffer.add(torch.eye(4), torch.tensor([0, 1, 1, 0]), None)
    >>> len(buffer)
    2
    """

    def __init__(self, per_class: int = 50, *, generator: torch.Generator | None = None) -> None:
        if per_class < 1:
            raise ConfigError(f"per_class: got {per_class}, expected at least 1 sample")
        self.per_class, self.generator = per_class, generator
        self._memory: _Memory | None = None

    def __len__(self) -> int:
        return 0 if self._memory is None else len(self._memory.targets)

    def add(self, inputs: Tensor, targets: Tensor, classes: tuple[int, ...] | None) -> None:
        """Keep `per_class` of each class of `inputs` `[n, ...]`, `targets` `[n]`."""
        order = torch.randperm(len(targets), generator=self.generator)
        kept = [order[targets[order] == label][: self.per_class] for label in targets.unique()]
        chosen = torch.cat(kept)
        new = _Memory(inputs[chosen].clone(), targets[chosen].clone(), [classes] * len(chosen))
        old = self._memory
        self._memory = new if old is None else _Memory(
            torch.cat([old.inputs, new.inputs]), torch.cat([old.targets, new.targets]), old.classes + new.classes
        )  # fmt: skip

    def add_task(self, task: Task) -> None:
        """Keep samples of a task's training data."""
        seed = int(torch.randint(2**31, (), generator=self.generator))
        parts = list(batches(task.train, 1024, seed=seed, epoch=0))
        self.add(torch.cat([b.inputs for b in parts]), torch.cat([b.targets for b in parts]), task.classes)

    def draw(self, count: int) -> Batch:
        """`count` remembered samples, drawn without replacement as long as there are enough."""
        if self._memory is None:
            raise ConfigError("replay buffer: it is empty; add samples before drawing")
        order = torch.randperm(len(self), generator=self.generator)
        return self.select(order[torch.arange(count) % len(self)] if count > len(self) else order[:count])

    def select(self, index: Tensor) -> Batch:
        """Remembered samples by their position."""
        if self._memory is None:
            raise ConfigError("replay buffer: it is empty; add samples before drawing")
        inputs, targets, classes = self._memory
        return Batch(inputs[index], targets[index], _allowed([classes[i] for i in index.tolist()]))

    def state_dict(self) -> dict[str, Any]:
        """The remembered samples and the generator's position."""
        memory = self._memory
        return {
            "inputs": None if memory is None else memory.inputs,
            "targets": None if memory is None else memory.targets,
            "classes": None if memory is None else [None if c is None else list(c) for c in memory.classes],
            "generator": None if self.generator is None else self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._memory = None
        if state["inputs"] is not None:
            classes = [None if c is None else tuple(c) for c in state["classes"]]
            self._memory = _Memory(state["inputs"], state["targets"], classes)
        if self.generator is not None and state["generator"] is not None:
            self.generator.set_state(state["generator"])


def _allowed(per_sample: list[tuple[int, ...] | None]) -> Tensor | None:
    known = [c for c in per_sample if c is not None]
    if len(known) < len(per_sample):
        return None
    return class_mask(known, 1 + max(max(c) for c in known))


class Replay(Plugin):
    """Experience replay: every batch is joined by as many remembered samples of earlier tasks.

    Args:
        per_class: samples remembered of each class of each task.
        batch_size: remembered samples per batch; `None` draws as many as there are new ones.
        generator: chooses what is kept and drawn.

    In a loop of your own pass batches through `before_batch` and call `after_task(task)`.

    >>> replay = Replay(per_class=5)
    >>> replay.buffer.add(torch.randn(20, 3), torch.arange(20) % 2, None)
    >>> replay.before_batch(Batch(torch.randn(8, 3), torch.zeros(8).long())).inputs.shape
    torch.Size([16, 3])
    """

    def __init__(
        self, per_class: int = 50, *, batch_size: int | None = None, generator: torch.Generator | None = None
    ) -> None:
        self.buffer = ReplayBuffer(per_class, generator=generator)
        self.batch_size = batch_size

    def before_batch(self, batch: Batch) -> Batch:
        """Join remembered samples to the batch."""
        if not len(self.buffer):
            return batch
        old = self.buffer.draw(self.batch_size or len(batch.targets))
        return Batch(
            torch.cat([batch.inputs, old.inputs.to(batch.inputs)]),
            torch.cat([batch.targets, old.targets.to(batch.targets)]),
            _join(batch, old),
        )

    def after_task(self, task: Task) -> None:
        """Remember samples of the finished task."""
        self.buffer.add_task(task)

    def state_dict(self) -> dict[str, Any]:
        """The buffer."""
        return self.buffer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.buffer.load_state_dict(state)


def _join(new: Batch, old: Batch) -> Tensor | None:
    """Mask `[batch, outputs]` of the answers allowed for new and remembered samples; None when all are for some."""
    if new.classes is None or not isinstance(old.classes, Tensor):
        return None
    here = new.classes if isinstance(new.classes, Tensor) else _allowed([new.classes] * len(new.targets))
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

    >>> Rehearsal(per_class=50, lr=0.01).epochs
    1
    """

    def __init__(
        self, per_class: int = 50, *, epochs: int = 1, lr: float = 0.01, batch_size: int = 64,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        self.buffer = ReplayBuffer(per_class, generator=generator)
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
                functional.cross_entropy(logits, batch.targets.to(device)).backward()
                optimizer.step()
        optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """The buffer."""
        return self.buffer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.buffer.load_state_dict(state)
