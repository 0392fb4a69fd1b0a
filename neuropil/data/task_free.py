"""One stretch of samples in which tasks give way to each other gradually, and nobody says where one ends."""

from __future__ import annotations

import hashlib
from collections.abc import Sized
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from neuropil.data.arrays import InOrder
from neuropil.data.task import Stream, Task
from neuropil.errors import ConfigError

if TYPE_CHECKING:
    from jaxtyping import Float64

_DRIFT = 8  # its own random stream among those drawn from one seed


def mixture(tasks: int, time: float, *, width: float = 0.5) -> Float64[Tensor, " tasks"]:
    """Shares `[tasks]` that tasks have in a drifting stream at `time`, from 0 (its beginning) to 1.

    Task `k` comes and goes as a bell centred on the middle of its own stretch of the time, `(k + 0.5) / tasks`, with a
    standard deviation of `width` stretches; shares add up to one. With width 0 each task has its stretch to itself.

    >>> mixture(2, 0.5).tolist()
    [0.5, 0.5]
    >>> mixture(2, 0.9, width=0).tolist()
    [0.0, 1.0]
    """
    if tasks < 1 or not 0 <= time <= 1 or not width >= 0:
        raise ConfigError(
            f"mixture: {tasks} tasks at time {time} with width {width}; expected at least 1, a time in [0, 1] and a "
            "width of at least 0"
        )
    if width == 0:
        return torch.nn.functional.one_hot(torch.tensor(min(int(time * tasks), tasks - 1)), tasks).double()
    distance = (time * tasks - 0.5 - torch.arange(tasks, dtype=torch.double)).square()
    # counted from the nearest task and divided one by one, a width near zero overflows to a share of zero, not to NaN
    return torch.softmax(-0.5 * (distance - distance.min()) / width / width, 0)


def drifting(stream: Stream, *, width: float = 0.5, samples: int | None = None, seed: int = 0) -> Stream:
    """The tasks of a stream as one task without boundaries: what is met changes gradually, and nothing says so.

    Each sample is drawn from one of the tasks, with the shares that `mixture` gives at its time, and none is met
    twice; a task that has run out leaves its share to the others. Samples are met in this order in one pass: learn
    them once (`epochs=1`), nothing is shuffled. A task that has an order keeps it. `samples` draws fewer than there
    are; `width` is in stretches of the time that a task would have to itself, and 0 puts one task after another.
    Validation and test samples are those of all tasks together. To see how learning goes through time, judge on the
    tasks of `stream`, or watch `OnlineAccuracy`.

    Raises ConfigError for a width below 0 or more samples than there are, and for a task given as a DataLoader.

    Schedule as in Shanahan, Kaplanis and Mitrovic: Encoders and Ensembles for Task-Free Continual Learning. 2021.
    arXiv:2105.13327

    >>> from neuropil.data.streams import rotated
    >>> whole = drifting(rotated("mnist", 3, train_samples=100))
    >>> len(whole), len(whole[0].train)
    (1, 300)
    """
    parts: list[Dataset[Any]] = []
    for task in stream:
        if isinstance(task.train, DataLoader):
            raise ConfigError(
                f"drifting: task {task.name!r} is a DataLoader with an order of its own; give a dataset"
            )
        parts.append(task.train)
    sizes = [len(cast(Sized, part)) for part in parts]
    total = sum(sizes) if samples is None else samples
    if not 1 <= total <= sum(sizes):
        raise ConfigError(f"drifting: {samples} samples asked for, the stream has {sum(sizes)}")
    orders = [
        np.arange(size)
        if isinstance(part, InOrder)
        else np.random.default_rng([seed, _DRIFT, k]).permutation(size)
        for k, (part, size) in enumerate(zip(parts, sizes, strict=True))
    ]
    owners = _owners(sizes, total, width, seed)
    chosen = np.empty(total, dtype=np.int64)
    offsets = np.cumsum([0, *sizes[:-1]])
    for k, order in enumerate(orders):
        met = np.flatnonzero(owners == k)
        chosen[met] = offsets[k] + order[: len(met)]
    name = f"drifting-{stream.name}"
    text = repr((stream.checksum, width, total, seed))
    whole = Task(
        name,
        InOrder(ConcatDataset(parts), chosen.tolist()),
        stream.validation,
        stream.test,
        checksum=hashlib.sha256(text.encode()).hexdigest() if stream.checksum else "",
    )
    return Stream((whole,), name, stream.n_classes)


def _owners(
    sizes: list[int], total: int, width: float, seed: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The task that each sample is drawn from, `[total]`."""
    left = np.array(sizes)
    draws = np.random.default_rng([seed, _DRIFT]).random(total)
    owners = np.empty(total, dtype=np.int64)
    if width == 0:  # a whole number of samples each, in proportion to what there is
        ends = np.round(np.cumsum(left) / left.sum() * total).astype(np.int64)
        return np.searchsorted(ends, np.arange(total), side="right")
    for place in range(total):
        shares = mixture(len(sizes), place / total, width=width).numpy() * (left > 0)
        if not shares.sum():  # the shares of all that is left are too small for a floating point number
            shares = (left > 0).astype(float)
        cumulated = np.cumsum(shares)
        owner = int(np.searchsorted(cumulated, draws[place] * cumulated[-1], side="right"))
        owners[place] = owner
        left[owner] -= 1
    return owners
