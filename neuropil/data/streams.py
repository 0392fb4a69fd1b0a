"""Streams of tasks made of one data set, or of any tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from neuropil.data.arrays import Arrays
from neuropil.data.from_images import (
    DIVISION,
    ImageSource,
    as_images,
    check_tasks,
    finish,
    marked_stream,
    task_of_images,
)
from neuropil.data.images import Images
from neuropil.data.task import Samples, Stream, Task
from neuropil.data.transforms import Compose, Permute, Rotate, Transform
from neuropil.errors import ConfigError, DataError, EmptyTaskError, nearest

_PERMUTATION, _CLASS_ORDER = 2, 3  # random streams of their own, drawn from one seed with the division's


def permuted(
    source: ImageSource,
    tasks: int = 10,
    *,
    seed: int = 0,
    train_samples: int | None = None,
    validation_samples: int | None = None,
    test_samples: int | None = None,
    flat: bool = True,
) -> Stream:
    """The same images again and again, their pixels in another random order for each task.

    Every task is permuted, the first too, and all share the ten answers (domain-incremental). All tasks use
    the same images. Inputs are normalised, `[784]` when `flat`, else `[1, 28, 28]`. Sizes count samples of
    one task: `validation_samples` are carved from the training part at random (default a tenth, 0 allowed),
    `train_samples` are taken of what remains; None takes all. The first k tasks do not depend on how many
    follow.

    Raises ConfigError, EmptyTaskError or DataError for sizes that do not fit.

    Goodfellow et al., "An empirical investigation of catastrophic forgetting", arXiv:1312.6211.

    >>> stream = permuted("mnist", tasks=2, seed=0)
    >>> stream[1].train[0][0].shape
    torch.Size([784])
    """
    images = as_images(source)
    check_tasks("permuted", tasks, seed)
    elements = images.train[0].numel()
    sizes = (train_samples, validation_samples, test_samples)
    made = []
    for index in range(tasks):
        order = np.random.default_rng([seed, _PERMUTATION, index]).permutation(elements)
        normalize, reshape = finish(images, flat)
        transforms = Compose((normalize, Permute(torch.from_numpy(order)), reshape))
        made.append(task_of_images(images, f"permutation {index + 1}", index, transforms, sizes, seed))
    return marked_stream(f"permuted-{images.name}", images, made, images.n_classes, seed, sizes, flat)


def split(
    source: ImageSource,
    classes_per_task: int = 2,
    *,
    tasks: int | None = None,
    seed: int = 0,
    scenario: Literal["task", "class"] = "task",
    class_order: Literal["given", "random"] | Sequence[int] = "given",
    train_samples: int | None = None,
    validation_samples: int | None = None,
    test_samples: int | None = None,
    flat: bool = True,
) -> Stream:
    """A few classes of the data set in each task.

    Labels are counted over the whole data set. In scenario `"task"` the task is known when answering: each
    carries its `classes`. In `"class"` it is not, and every class may be the answer. `class_order` is as
    given by the data set, drawn at random from the seed, or a list of classes. `tasks` defaults to as many as
    the classes allow. Sizes and shapes as in `permuted`.

    Raises ConfigError for more tasks than the classes allow, EmptyTaskError or DataError for sizes that do
    not fit.

    van de Ven et al., "Three types of incremental learning", Nature Machine Intelligence 4, 2022.

    >>> [task.classes for task in split("fashion-mnist", 5)]
    [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)]
    """
    images = as_images(source)
    order = _class_order(images, class_order, seed)
    if classes_per_task < 1:
        raise ConfigError(f"split: classes_per_task must be at least 1, got {classes_per_task}")
    possible = len(order) // classes_per_task
    tasks = max(1, possible) if tasks is None else tasks
    check_tasks("split", tasks, seed)
    if tasks > possible:
        raise ConfigError(
            f"split: {tasks} tasks of {classes_per_task} classes need {tasks * classes_per_task} classes, "
            f"{images.name} gives {len(order)}; at most {possible} tasks"
        )
    if scenario not in ("task", "class"):
        raise ConfigError(f"split: scenario {scenario!r} is unknown{nearest(scenario, ('task', 'class'))}")
    sizes = (train_samples, validation_samples, test_samples)
    made = []
    for index in range(tasks):
        classes = tuple(order[index * classes_per_task : (index + 1) * classes_per_task])
        name = "classes " + ", ".join(images.class_names[c] for c in classes)
        task = task_of_images(images, name, index, Compose(finish(images, flat)), sizes, seed, classes)
        made.append(task if scenario == "task" else replace(task, classes=None))
    parameters = (sizes, flat, scenario, classes_per_task, order)
    return marked_stream(f"split-{images.name}", images, made, images.n_classes, seed, *parameters)


def rotated(
    source: ImageSource,
    tasks: int | None = None,
    *,
    angles: Sequence[float] | None = None,
    seed: int = 0,
    train_samples: int | None = None,
    validation_samples: int | None = None,
    test_samples: int | None = None,
    flat: bool = True,
) -> Stream:
    """The same images turned by another angle in each task.

    `angles` are in degrees, counterclockwise; `tasks` alone spreads that many evenly from 0 to below 180. The
    answers are shared (domain-incremental). Sizes and shapes as in `permuted`. Raises EmptyTaskError when
    neither is given, ConfigError when they contradict each other, DataError when the items are not images.

    Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", arXiv:1706.08840.

    >>> [task.name for task in rotated("mnist", 3)]
    ['0°', '60°', '120°']
    """
    images = as_images(source)
    if angles is None:
        angles = [180.0 * i / tasks for i in range(tasks)] if tasks else []
    if tasks is not None and tasks != len(angles):
        raise ConfigError(f"rotated: {tasks} tasks but {len(angles)} angles; give one of the two")
    check_tasks("rotated", len(angles), seed)
    if len(images.shape) != 2:
        raise DataError(
            f"rotated: items of {images.name} have shape {list(images.shape)}; expected [height, width]"
        )
    sizes = (train_samples, validation_samples, test_samples)
    made = []
    for index, angle in enumerate(angles):
        transform = Compose((Rotate(float(angle)), *finish(images, flat)))
        made.append(task_of_images(images, f"{angle:g}°", index, transform, sizes, seed))
    return marked_stream(
        f"rotated-{images.name}", images, made, images.n_classes, seed, sizes, flat, list(angles)
    )


def stream(
    tasks: Iterable[Task | tuple[Samples, Samples, Samples]],
    *,
    name: str = "stream",
    n_classes: int | None = None,
) -> Stream:
    """A stream of any tasks, or of any (train, validation, test) datasets or loaders, in the order given.

    `n_classes` is the number of outputs a model needs; left out, it is found where the targets are in memory
    (`Arrays`, `TensorDataset`), and 0 (unknown) otherwise. Raises EmptyTaskError without tasks.

    >>> part = Arrays([[0.0], [1.0]], [0, 1])
    >>> stream([(part, part, part)]).n_classes
    2
    """
    made = []
    for index, item in enumerate(tasks):
        task = item if isinstance(item, Task) else Task(f"task {index + 1}", *item)
        made.append(replace(task, index=index))
    if n_classes is None:
        parts = [part for task in made for part in (task.train, task.validation, task.test)]
        n_classes = _count_classes(parts)
    return Stream(tuple(made), name, n_classes)


def task_from_arrays(
    inputs: Any,
    targets: Any,
    *,
    name: str = "task",
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    transform: Transform | None = None,
    classes: tuple[int, ...] | None = None,
) -> Task:
    """A task from own arrays, tensors or lists, divided at random by the seed.

    `validation` and `test` are fractions in [0, 1) of the samples. Raises DataError when the lengths differ,
    EmptyTaskError when no training sample remains.

    >>> task = task_from_arrays([[float(i)] for i in range(10)], [i % 2 for i in range(10)])
    >>> len(task.train), len(task.validation), len(task.test)
    (7, 1, 2)
    """
    samples = Arrays(inputs, targets, transform)
    n = len(samples)
    n_test, n_validation = round(test * n), round(validation * n)
    if min(validation, test) < 0 or n_test + n_validation >= n:
        raise EmptyTaskError(
            f"{name}: validation={validation} and test={test} of {n} samples leave none to train on"
        )
    order = np.random.default_rng([seed, DIVISION]).permutation(n)
    test_part, validation_part, train_part = (
        samples.subset(torch.from_numpy(np.sort(part)))
        for part in np.split(order, [n_test, n_test + n_validation])
    )
    return Task(name, train_part, validation_part, test_part, classes)


def _class_order(images: Images, class_order: str | Sequence[int], seed: int) -> list[int]:
    everything = list(range(images.n_classes))
    if class_order == "given":
        return everything
    if class_order == "random":
        return [int(c) for c in np.random.default_rng([seed, _CLASS_ORDER]).permutation(images.n_classes)]
    if isinstance(class_order, str):
        raise ConfigError(
            f"split: class_order {class_order!r} is unknown{nearest(class_order, ('given', 'random'))}"
        )
    order = [int(c) for c in class_order]
    if len(set(order)) != len(order) or not set(order) <= set(everything):
        raise ConfigError(
            f"split: class_order {order} must name classes 0 to {images.n_classes - 1}, each at most once"
        )
    return order


def _count_classes(parts: list[Samples]) -> int:
    """One more than the highest label; 0 when some labels are not in memory or are no labels."""
    highest = -1
    for part in parts:
        labels = _labels(part)
        if labels is None or labels.is_floating_point():
            return 0
        highest = max(highest, int(labels.max())) if len(labels) else highest
    return highest + 1


def _labels(part: Samples) -> Tensor | None:
    if isinstance(part, Arrays):
        return part.labels()
    if isinstance(part, TensorDataset) and len(part.tensors) == 2:
        return part.tensors[1]
    return None
