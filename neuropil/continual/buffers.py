"""Memories of samples, one interface and four rules of what is kept.

Reservoir: Vitter: Random sampling with a reservoir. ACM Transactions on Mathematical Software 1985.
Ring and the comparison of rules: Chaudhry et al.: On tiny episodic memories in continual learning. 2019.
arXiv:1902.10486. Class-balanced: Prabhu et al.: GDumb. ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuropil.data.batching import batches
from neuropil.data.task import Batch, Task
from neuropil.errors import ConfigError, ShapeError
from neuropil.training.allowed import class_mask


class Memory(NamedTuple):
    """Samples that are remembered, or offered."""

    inputs: Tensor  # [n, ...]
    targets: Tensor  # [n]
    tasks: Tensor  # [n], the number of the task that each was met in


class ReplayBuffer:
    """Samples of earlier tasks, and how they are drawn; a subclass decides which are kept.

    A rule of one's own overrides `choose(old, new)`, which answers with the positions to keep in both together:
    up to `len(old.targets)` they mean remembered samples, from there on offered ones.

    >>> class Latest(ReplayBuffer):
    ...     def choose(self, old, new):
    ...         return torch.arange(len(old.targets), len(old.targets) + len(new.targets))
    >>> buffer = Latest()
    >>> buffer.add(torch.eye(2), torch.tensor([0, 1]))
    >>> buffer.add(torch.eye(2), torch.tensor([2, 3]))
    >>> sorted(buffer.draw(2).targets.tolist())
    [2, 3]
    """

    def __init__(self, *, generator: torch.Generator | None = None) -> None:
        self.generator = generator
        self._memory: Memory | None = None
        self._classes: list[tuple[int, ...] | None] = []  # answers allowed, task by task

    def choose(self, old: Memory, new: Memory) -> Tensor:
        """Positions `[kept]` of what to remember, of old and new samples one after the other."""
        raise ConfigError(f"{type(self).__name__} must define choose(old, new)")

    def __len__(self) -> int:
        return 0 if self._memory is None else len(self._memory.targets)

    @property
    def tasks(self) -> int:
        """Number of tasks that samples were offered from."""
        return len(self._classes)

    def add(
        self,
        inputs: Tensor,
        targets: Tensor,
        classes: tuple[int, ...] | None = None,
        *,
        task: int | None = None,
    ) -> None:
        """Offer samples, `inputs` `[n, ...]` and `targets` `[n]`, of a new task or of the task of that number."""
        if len(inputs) != len(targets):
            raise ShapeError(f"replay buffer: {len(inputs)} inputs and {len(targets)} targets")
        task = self.tasks if task is None else task
        if not 0 <= task <= self.tasks:
            raise ConfigError(
                f"replay buffer: task {task} of {self.tasks}; tasks are numbered as they are met"
            )
        if task == self.tasks:
            self._classes.append(classes)
        new = Memory(inputs.detach(), targets, torch.full((len(targets),), task))
        old = self._memory or Memory(inputs[:0].clone(), targets[:0].clone(), new.tasks[:0])
        self._memory = _kept(old, new, self.choose(old, new))

    def add_task(self, task: Task) -> None:
        """Offer a task's training data, in random order."""
        seed = int(torch.randint(2**31, (), generator=self.generator))
        parts = list(batches(task.train, 1024, seed=seed, epoch=0))
        self.add(torch.cat([b.inputs for b in parts]), torch.cat([b.targets for b in parts]), task.classes)

    def draw(self, count: int) -> Batch:
        """`count` remembered samples, drawn without replacement as long as there are enough."""
        order = torch.randperm(len(self._filled().targets), generator=self.generator)
        return self.select(order[torch.arange(count) % len(self)] if count > len(self) else order[:count])

    def draw_by_task(self, weights: Sequence[float] | Tensor, count: int) -> Batch:
        """`count` remembered samples, with replacement; task k is drawn from in proportion to `weights[k]`.

        Tasks that nothing is remembered of are passed over; within a task all samples are alike.
        """
        share = torch.as_tensor(weights, dtype=torch.double)
        if len(share) != self.tasks or not bool((share >= 0).all()):
            raise ConfigError(
                f"replay buffer: {len(share)} weights for {self.tasks} tasks, expected one a task, at least 0"
            )
        held = torch.bincount(self._filled().tasks, minlength=self.tasks)
        share = share * (held > 0)
        if not share.sum() > 0:
            raise ConfigError("replay buffer: no task of positive weight is remembered")
        per_sample = (share / held.clamp_min(1))[self._filled().tasks]
        ends = per_sample.cumsum(0)
        at = torch.rand(count, generator=self.generator, dtype=torch.double) * ends[-1]
        return self.select(torch.searchsorted(ends, at, right=True).clamp_max(len(ends) - 1))

    def select(self, index: Tensor) -> Batch:
        """Remembered samples by their position."""
        inputs, targets, tasks = (part.index_select(0, index) for part in self._filled())
        return Batch(inputs, targets, self._allowed(tasks))

    def positions(self, task: int) -> Tensor:
        """Where the samples of a task are."""
        return (self._filled().tasks == task).nonzero()[:, 0]

    def state_dict(self) -> dict[str, Any]:
        """The remembered samples and the generator's position."""
        memory = self._memory
        return {
            "inputs": None if memory is None else memory.inputs,
            "targets": None if memory is None else memory.targets,
            "tasks": None if memory is None else memory.tasks,
            "classes": [None if c is None else list(c) for c in self._classes],
            "generator": None if self.generator is None else self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._memory = None
        self._classes = [None if c is None else tuple(c) for c in state["classes"]]
        if state["inputs"] is not None:
            self._memory = Memory(*(state[name].clone() for name in Memory._fields))
        if self.generator is not None and state["generator"] is not None:
            self.generator.set_state(state["generator"])

    def _filled(self) -> Memory:
        if self._memory is None or not len(self._memory.targets):
            raise ConfigError("replay buffer: it is empty; add samples before drawing")
        return self._memory

    def _allowed(self, tasks: Tensor) -> Tensor | None:
        if all(classes is None for classes in self._classes):
            return None
        return allowed_answers([self._classes[task] for task in tasks.tolist()])


def allowed_answers(per_sample: Sequence[tuple[int, ...] | None]) -> Tensor | None:
    """Mask `[samples, outputs]` of the answers allowed sample by sample; None when all are for some of them."""
    known = [c for c in per_sample if c is not None]
    if len(known) < len(per_sample):
        return None
    return class_mask(known, 1 + max(max(c) for c in known))


def _kept(old: Memory, new: Memory, keep: Tensor) -> Memory:
    """What `keep` chooses of old and new samples; in place where a full memory only exchanges a few."""
    n = len(old.targets)
    if n == 0 and len(keep) == len(new.targets) and torch.equal(keep, torch.arange(len(keep))):
        return Memory(*(part.clone() for part in new))
    if len(keep) == n:
        slots = (keep != torch.arange(n)).nonzero()[:, 0]
        if bool((keep[slots] >= n).all()):
            for mine, offered in zip(old, new, strict=True):
                mine[slots] = offered[keep[slots] - n].to(mine)
            return old
    return Memory(
        *(torch.cat([mine, offered.to(mine)])[keep] for mine, offered in zip(old, new, strict=True))
    )


def _check_size(name: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"{name}: got {value}, expected at least 1 sample")
    return value


class PerClassBuffer(ReplayBuffer):
    """Keeps `per_class` samples of every class of every task, chosen at random; it grows with the stream.

    >>> buffer = PerClassBuffer(per_class=1)
    >>> buffer.add(torch.eye(4), torch.tensor([0, 1, 1, 0]))
    >>> len(buffer)
    2
    """

    def __init__(self, per_class: int = 50, *, generator: torch.Generator | None = None) -> None:
        super().__init__(generator=generator)
        self.per_class = _check_size("per_class", per_class)

    def choose(self, old: Memory, new: Memory) -> Tensor:
        """All old samples, and `per_class` new ones of each class."""
        order = torch.randperm(len(new.targets), generator=self.generator)
        kept = [order[new.targets[order] == label][: self.per_class] for label in new.targets.unique()]
        n = len(old.targets)
        return torch.cat([torch.arange(n), *(part + n for part in kept)])


class ReservoirBuffer(ReplayBuffer):
    """Keeps `capacity` samples, a uniform choice of all that were ever offered, whatever their order.

    It needs no boundaries between tasks. (Vitter's algorithm R.)

    >>> buffer = ReservoirBuffer(capacity=3, generator=torch.Generator().manual_seed(0))
    >>> for label in range(100):
    ...     buffer.add(torch.zeros(1, 2), torch.tensor([label]))
    >>> len(buffer), buffer.seen
    (3, 100)
    """

    def __init__(self, capacity: int = 500, *, generator: torch.Generator | None = None) -> None:
        super().__init__(generator=generator)
        self.capacity = _check_size("capacity", capacity)
        self.seen = 0

    def choose(self, old: Memory, new: Memory) -> Tensor:
        """The n-th sample offered takes a random place with probability capacity / n."""
        n, offered = len(old.targets), len(new.targets)
        number = torch.arange(self.seen, self.seen + offered)
        self.seen += offered
        drawn = torch.rand(offered, generator=self.generator, dtype=torch.double)
        place = torch.where(number < self.capacity, number, (drawn * (number + 1)).long())
        taken = (place < self.capacity).nonzero()[:, 0]
        keep = list(range(n)) + [0] * (min(self.capacity, n + offered) - n)
        for slot, source in zip(place[taken].tolist(), taken.tolist(), strict=True):
            keep[slot] = n + source  # a later sample takes the place of an earlier one
        return torch.tensor(keep, dtype=torch.long)

    def state_dict(self) -> dict[str, Any]:
        """The buffer and how many samples were offered."""
        return {**super().state_dict(), "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self.seen = state["seen"]


class RingBuffer(ReplayBuffer):
    """Keeps the latest `per_task` samples of every task, first in first out; `None` keeps all.

    >>> buffer = RingBuffer(per_task=2)
    >>> for label in range(5):
    ...     buffer.add(torch.zeros(1, 2), torch.tensor([label]), task=0)
    >>> buffer.select(buffer.positions(0)).targets
    tensor([3, 4])
    """

    def __init__(self, per_task: int | None = 256, *, generator: torch.Generator | None = None) -> None:
        super().__init__(generator=generator)
        self.per_task = None if per_task is None else _check_size("per_task", per_task)

    def choose(self, old: Memory, new: Memory) -> Tensor:
        """All samples of other tasks, and the latest of the task at hand."""
        at = torch.arange(len(old.targets) + len(new.targets))
        if self.per_task is None or not len(new.tasks):
            return at
        mine = torch.cat([old.tasks, new.tasks]) == new.tasks[0]
        return torch.cat([at[~mine], at[mine][-self.per_task :]])


class ClassBalancedBuffer(ReplayBuffer):
    """Keeps `capacity` samples in all, as many of each class as of any other, chosen at random.

    A new class takes its room from the classes that have most.

    >>> buffer = ClassBalancedBuffer(capacity=4)
    >>> buffer.add(torch.zeros(10, 2), torch.zeros(10).long())
    >>> buffer.add(torch.zeros(10, 2), torch.ones(10).long())
    >>> sorted(buffer.draw(4).targets.tolist())
    [0, 0, 1, 1]
    """

    def __init__(self, capacity: int = 500, *, generator: torch.Generator | None = None) -> None:
        super().__init__(generator=generator)
        self.capacity = _check_size("capacity", capacity)
        self._seen: dict[int, int] = {}  # samples offered of each class

    def choose(self, old: Memory, new: Memory) -> Tensor:
        """As large an equal share of every class as fits; within a class a uniform choice of all offered."""
        targets = torch.cat([old.targets, new.targets.to(old.targets)])
        n, kept = len(old.targets), []
        labels = targets.unique().tolist()
        candidates = {label: self._candidates(targets, label, n) for label in labels}
        room = _fair_shares([len(candidates[label]) for label in labels], self.capacity)
        for label, size in zip(labels, room, strict=True):
            mine = candidates[label]
            drop = torch.randperm(len(mine), generator=self.generator)[: len(mine) - size]
            stays = torch.ones(len(mine), dtype=torch.bool)
            stays[drop] = False
            kept.append(mine[stays])
        return torch.cat(kept)

    def _candidates(self, targets: Tensor, label: int, n: int) -> Tensor:
        """Positions of a class's remembered samples, offered ones in their place as a reservoir would have it."""
        at = (targets == label).nonzero()[:, 0].tolist()
        slots, offered = [i for i in at if i < n], [i for i in at if i >= n]
        seen = self._seen.get(label, 0)
        drawn = torch.rand(len(offered), generator=self.generator, dtype=torch.double).tolist()
        grows = seen == len(slots)  # nothing of the class was ever dropped
        size = self.capacity if grows else len(slots)
        for source, u in zip(offered, drawn, strict=True):
            seen += 1
            if len(slots) < size:
                slots.append(source)
            elif (place := int(u * seen)) < len(slots):
                slots[place] = source
        self._seen[label] = seen
        return torch.tensor(slots, dtype=torch.long)

    def state_dict(self) -> dict[str, Any]:
        """The buffer and how many samples of each class were offered."""
        seen = [[label, count] for label, count in sorted(self._seen.items())]
        return {**super().state_dict(), "seen": seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self._seen = {label: count for label, count in state["seen"]}


def _fair_shares(sizes: Sequence[int], capacity: int) -> list[int]:
    """Integers up to `sizes` that sum to at most `capacity`, the smallest as large as can be.

    >>> _fair_shares([1, 9, 9], 10)
    [1, 5, 4]
    """
    shares, left = [0] * len(sizes), capacity
    order = sorted(range(len(sizes)), key=lambda i: sizes[i])
    for done, i in enumerate(order):
        rest = len(order) - done
        shares[i] = min(sizes[i], -(-left // rest))
        left -= shares[i]
    return shares
