"""From samples of any kind to checked batches, in an order that can be reproduced and resumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
)

from neuropil.data.arrays import Arrays, InOrder
from neuropil.data.huggingface import HuggingFaceRows
from neuropil.data.task import Batch, CheckedBatch, Samples
from neuropil.errors import ConfigError, DataError, EmptyTaskError, LabelError, NonFiniteError

if TYPE_CHECKING:
    from jaxtyping import Int64

Pair = tuple[Tensor, Tensor]
Gather = Callable[[Tensor], Pair]  # positions to the inputs and targets of a batch


def batches(
    samples: Samples,
    batch_size: int,
    *,
    seed: int = 0,
    epoch: int = 0,
    start: int = 0,
    shuffle: bool = True,
    classes: tuple[int, ...] | None = None,
    n_classes: int | None = None,
) -> Iterator[Batch]:
    """Iterate over samples in checked batches of `batch_size`; the last may be smaller.

    The order depends on `seed` and `epoch` alone, and beginning at batch `start` does not draw the ones
    before. `InOrder` samples keep their order. A `DataLoader` is iterated as it is: its batch size and order hold,
    and skipped batches are drawn.
    `classes` is handed on in every `Batch`.

    Raises EmptyTaskError without samples, NonFiniteError for NaN or infinity in the inputs and, when
    `classes` or `n_classes` is given, LabelError for targets that are not integers in those classes; the
    message names the batch.

    >>> samples = Arrays(torch.arange(5.0)[:, None], torch.arange(5))
    >>> [batch.targets.tolist() for batch in batches(samples, 2, shuffle=False, start=1)]
    [[2, 3], [4]]
    """
    if batch_size < 1 or start < 0 or seed < 0 or epoch < 0:
        raise ConfigError(
            f"batches: batch_size must be at least 1 and start, seed and epoch at least 0, "
            f"got {batch_size}, {start}, {seed} and {epoch}"
        )
    number = -1
    for number, (inputs, targets) in _pairs(samples, batch_size, seed, epoch, start, shuffle):
        check_batch(inputs, targets, number, classes=classes, n_classes=n_classes)
        yield CheckedBatch(inputs, targets, classes)
    if number < 0 and not start:
        raise EmptyTaskError("there are no samples to make batches of; give at least one")


def n_batches(samples: Samples, batch_size: int) -> int:
    """Number of batches that `batches` yields in one epoch.

    >>> n_batches(Arrays(torch.zeros(5, 1), torch.zeros(5)), 2)
    3
    """
    if isinstance(samples, DataLoader):
        return len(samples)
    return -(-len(cast(Sized, samples)) // batch_size)


def gather(samples: Dataset[Any], indices: Int64[Tensor, " batch"] | Sequence[int]) -> Pair:
    """Inputs and targets at several positions of any map-style dataset of pairs, as one batch.

    >>> gather(Subset(Arrays(torch.eye(3), [0, 1, 2]), [2, 1]), [0])
    (tensor([[0., 0., 1.]]), tensor([2]))
    """
    return _gatherer(samples)(torch.as_tensor(indices, dtype=torch.int64))


def check_batch(
    inputs: Tensor,
    targets: Tensor,
    number: int = 0,
    *,
    classes: tuple[int, ...] | None = None,
    n_classes: int | None = None,
) -> None:
    """Raise the one-line error of what is wrong with batch `number`, if anything is."""
    if not len(inputs) or len(inputs) != len(targets):
        raise DataError(
            f"batch {number}: {len(inputs)} inputs and {len(targets)} targets; expected as many, at least 1"
        )
    # NaN and infinity survive a sum, so the cheap sum decides whether to look closer.
    if inputs.is_floating_point() and not math.isfinite(inputs.sum()):
        bad = ~torch.isfinite(inputs.flatten(1) if inputs.ndim > 1 else inputs[:, None]).all(1)
        if bad.any():
            raise NonFiniteError(f"batch {number}: input {int(bad.nonzero()[0])} holds NaN or infinity")
    if classes is None and n_classes is None:
        return
    if targets.is_floating_point() or targets.dtype == torch.bool or targets.ndim != 1:
        raise LabelError(
            f"batch {number}: targets are {targets.dtype} {list(targets.shape)}; expected integers [batch]"
        )
    allowed = f"in {list(classes)}" if classes is not None else f"from 0 to {cast(int, n_classes) - 1}"
    if classes is not None:
        wrong = ~torch.isin(targets, torch.tensor(classes, dtype=targets.dtype, device=targets.device))
    else:
        wrong = (targets < 0) | (targets >= cast(int, n_classes))
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise LabelError(
            f"batch {number}: target {int(targets[first])} at {first}; expected classes {allowed}"
        )


def _pairs(
    samples: Samples, batch_size: int, seed: int, epoch: int, start: int, shuffle: bool
) -> Iterator[tuple[int, Pair]]:
    if isinstance(samples, DataLoader):
        for number, item in enumerate(samples):
            if number >= start:
                yield number, _as_pair(item)
        return
    at = _gatherer(samples)
    n = len(cast(Sized, samples))
    shuffle = shuffle and not isinstance(samples, InOrder)
    order = np.random.default_rng([seed, epoch]).permutation(n) if shuffle else np.arange(n)
    positions = torch.from_numpy(order)
    for number in range(start, n_batches(samples, batch_size)):
        yield number, at(positions[number * batch_size : (number + 1) * batch_size])


def _gatherer(samples: Dataset[Any]) -> Gather:
    """How batches of these samples are gathered, looking through subsets and concatenations once."""
    if isinstance(samples, Arrays | HuggingFaceRows):
        return samples.gather
    if isinstance(samples, TensorDataset):
        tensors = samples.tensors
        if len(tensors) != 2:
            raise DataError(
                f"a sample of this TensorDataset has {len(tensors)} parts; expected (input, target)"
            )
        return lambda at: (tensors[0].index_select(0, at), tensors[1].index_select(0, at))
    if isinstance(samples, Subset):
        inner, rows = (
            _gatherer(samples.dataset),
            torch.as_tensor(np.asarray(samples.indices), dtype=torch.int64),
        )
        return lambda at: inner(rows[at])
    if isinstance(samples, ConcatDataset):
        return _concatenated(
            [_gatherer(part) for part in samples.datasets], torch.tensor(samples.cumulative_sizes)
        )
    if isinstance(samples, IterableDataset) or not hasattr(samples, "__getitem__"):
        raise ConfigError(f"{type(samples).__name__} can only be iterated; wrap it in a DataLoader")
    return lambda at: _as_pair(default_collate(_items(samples, at.tolist())))


def _concatenated(parts: list[Gather], ends: Tensor) -> Gather:
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1]])

    def at(positions: Tensor) -> Pair:
        owner = torch.searchsorted(ends, positions, right=True)
        order = torch.argsort(owner, stable=True)
        pieces = []
        for part in torch.unique(owner).tolist():
            pieces.append(parts[part](positions[owner == part] - starts[part]))
        inputs, targets = torch.cat([p[0] for p in pieces]), torch.cat([p[1] for p in pieces])
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        return inputs[back], targets[back]

    return at


def _items(samples: Any, positions: list[int]) -> list[Any]:
    if hasattr(samples, "__getitems__"):
        return list(samples.__getitems__(positions))
    return [samples[position] for position in positions]


def _as_pair(item: Any) -> Pair:
    if isinstance(item, Sequence) and len(item) == 2 and all(isinstance(part, Tensor) for part in item):
        return item[0], item[1]
    kind = f"a dict of {', '.join(map(str, item))}" if isinstance(item, dict) else type(item).__name__
    raise DataError(
        f"a batch is {kind}; expected (inputs, targets), for a dict see neuropil.data.from_huggingface"
    )
