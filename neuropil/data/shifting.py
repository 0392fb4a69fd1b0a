"""Streams in which the same images come to mean something else: classes exchange their labels over time.

Setting of Man, Damasio and Neven: Need is All You Need: Homeostatic Neural Networks Adapt to Concept Shift. 2022.
arXiv:2205.08645
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from neuropil.data.arrays import Arrays, InOrder
from neuropil.data.from_images import (
    ImageSource,
    as_images,
    check_tasks,
    finish,
    marked_stream,
    task_of_images,
)
from neuropil.data.task import Stream, Task
from neuropil.data.transforms import Compose
from neuropil.errors import ConfigError

if TYPE_CHECKING:
    from jaxtyping import Int64

_SWAPS, _ORDER = 6, 7  # random streams of their own among those drawn from one seed


def label_swaps(n_classes: int, swaps: int, *, seed: int = 0) -> Int64[Tensor, "swaps+1 n_classes"]:
    """What each class is called after 0, 1, ... exchanges of two random classes' names, `[swaps + 1, classes]`.

    The first rows do not depend on how many follow. Raises ConfigError for fewer than two classes.

    >>> table = label_swaps(10, 3, seed=0)
    >>> table[0].tolist(), (table[1] != table[2]).sum().item()
    ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 2)
    """
    if n_classes < 2 or swaps < 0:
        raise ConfigError(f"label_swaps: {n_classes} classes, {swaps} swaps; expected at least 2 and 0")
    rng = np.random.default_rng([seed, _SWAPS])
    table = [np.arange(n_classes)]
    for _ in range(swaps):
        one, other = rng.choice(n_classes, 2, replace=False)
        after = table[-1].copy()
        after[[one, other]] = after[[other, one]]
        table.append(after)
    return torch.from_numpy(np.stack(table))


def concept_shift(
    source: ImageSource,
    tasks: int = 10,
    *,
    swaps_per_task: float = 1.0,
    seed: int = 0,
    train_samples: int | None = None,
    validation_samples: int | None = None,
    test_samples: int | None = None,
    flat: bool = True,
) -> Stream:
    """The same images in every task, while classes exchange their labels: what was right becomes wrong.

    A task is one pass over the training images, in a random order of its own that is kept when it is learned. In the
    whole data set `swaps_per_task` exchanges of the labels of two random classes happen during a pass, evenly spaced
    and counted on from task to task: with 0.5 every second task begins with one, with 10 there are ten in each. The
    image at place `j` of pass `i` is labelled as after `floor(swaps_per_task * (i + j / n))` of them. Validation and
    test images of a task are labelled as at its end. Learn each pass once (`epochs=1`). Sizes and shapes as in
    `permuted`; `drifting(stream, width=0)` joins all passes to one task without boundaries.

    Raises ConfigError for a negative rate, and EmptyTaskError or DataError for sizes that do not fit.

    >>> stream = concept_shift("mnist", tasks=3, swaps_per_task=1, train_samples=100, test_samples=50)
    >>> first, last = (task.test.labels() for task in (stream[0], stream[2]))
    >>> bool((first != last).any())
    True
    """
    images = as_images(source)
    check_tasks("concept_shift", tasks, seed)
    if not swaps_per_task >= 0 or not math.isfinite(swaps_per_task):
        raise ConfigError(f"concept_shift: swaps_per_task is {swaps_per_task}, expected at least 0")
    sizes = (train_samples, validation_samples, test_samples)
    table = label_swaps(images.n_classes, math.floor(swaps_per_task * tasks + 1e-9), seed=seed)
    transform = Compose(finish(images, flat))
    made = []
    for index in range(tasks):
        task = task_of_images(images, f"pass {index + 1}", index, transform, sizes, seed)
        made.append(_relabelled(task, table, swaps_per_task, seed))
    name = f"concept-shift-{images.name}"
    return marked_stream(name, images, made, images.n_classes, seed, sizes, flat, swaps_per_task)


def _relabelled(task: Task, table: Tensor, rate: float, seed: int) -> Task:
    """The task with its passage of swaps laid over its labels."""
    train, validation, test = (cast(Arrays, part) for part in (task.train, task.validation, task.test))
    n = len(train)
    order = torch.from_numpy(np.random.default_rng([seed, _ORDER, task.index]).permutation(n))
    # a rate times a pass is not exact in floating point; what belongs to a whole number is counted as that
    swaps = torch.floor(rate * (task.index + torch.arange(n, dtype=torch.double) / n) + 1e-9).long()
    at_place = torch.empty_like(swaps)
    at_place[order] = swaps

    def named(samples: Arrays, after: Tensor) -> Arrays:
        targets = samples.targets.clone()
        targets[samples.indices] = table[after, samples.labels()]
        return Arrays(samples.inputs, targets, samples.transform, samples.indices)

    return replace(
        task,
        train=InOrder(named(train, at_place), order.tolist()),
        validation=named(validation, swaps[-1]),
        test=named(test, swaps[-1]),
    )
