"""What is learned from: batches, tasks and streams of tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload

from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from neuropil.errors import EmptyTaskError

Samples = Dataset[Any] | DataLoader[Any]


class Batch(NamedTuple):
    """Pairs to learn from.

    `classes` restricts the answer to some of the model's outputs (task-incremental learning: one head per
    task is a block of rows of one output layer); `None` means all of them.
    """

    inputs: Tensor  # [batch, ...features]
    targets: Tensor  # [batch], class indices counted over the whole stream
    classes: tuple[int, ...] | Tensor | None = None  # or a mask [batch, outputs], sample by sample


class CheckedBatch(Batch):
    """A batch whose inputs have been found finite; one made of it with `_replace` has not.

    >>> import torch
    >>> checked = CheckedBatch(torch.zeros(2, 3), torch.zeros(2))
    >>> isinstance(checked._replace(inputs=torch.ones(2, 3)), CheckedBatch)
    False
    """

    __slots__ = ()

    @classmethod
    def _make(cls, values: Iterable[Any]) -> Batch:  # type: ignore[override]
        return Batch._make(values)


@dataclass(frozen=True)
class Task:
    """One thing to learn, with disjoint samples to train on, to choose settings on and to judge by."""

    name: str
    train: Samples
    validation: Samples
    test: Samples
    classes: tuple[int, ...] | None = None  # the answers allowed when the task is known at test time
    index: int = 0  # position in the stream
    checksum: str = ""  # of data and parameters; "" when they are not known


@dataclass(frozen=True)
class Stream(Sequence[Task]):
    """Tasks in the order in which they are met. Indexing and iterating give `Task`s.

    `train`, `validation` and `test` are the tasks' samples together, for joint training or retraining.
    """

    tasks: tuple[Task, ...]
    name: str = "stream"
    n_classes: int = field(default=0)  # outputs a model needs; 0 when that is not known

    def __post_init__(self) -> None:
        if not self.tasks:
            raise EmptyTaskError(f"stream {self.name!r} has no tasks; give at least one")

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Stream: ...
    def __getitem__(self, index: int | slice) -> Task | Stream:
        if isinstance(index, slice):
            return Stream(self.tasks[index], self.name, self.n_classes)
        return self.tasks[index]

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    @property
    def checksum(self) -> str:
        """Changes when data or parameters of any task do; "" when those of some task are not known."""
        parts = [task.checksum for task in self.tasks]
        return hashlib.sha256("".join(parts).encode()).hexdigest() if all(parts) else ""

    @property
    def train(self) -> Dataset[Any]:
        """All training samples."""
        return _together(task.train for task in self.tasks)

    @property
    def validation(self) -> Dataset[Any]:
        """All validation samples."""
        return _together(task.validation for task in self.tasks)

    @property
    def test(self) -> Dataset[Any]:
        """All test samples."""
        return _together(task.test for task in self.tasks)


def _together(parts: Iterable[Samples]) -> Dataset[Any]:
    return ConcatDataset([part.dataset if isinstance(part, DataLoader) else part for part in parts])
