"""Streams of tasks made of one data set, or of any tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from neuropil.data.arrays import Arrays
from neuropil.data.images import Images, load, own_images
from neuropil.data.sources import SOURCES
from neuropil.data.task import Samples, Stream, Task
from neuropil.data.transforms import Compose, Normalize, Permute, Reshape, Rotate, Transform
from neuropil.errors import ConfigError, DataError, EmptyTaskError, UnknownNameError, nearest

Source = str | Images | tuple[Any, Any, Any, Any]  # a name, images, or own (train, labels, test, labels)
Sizes = tuple[
    int | None, int | None, int | None
]  # samples of train, validation and test; None takes all there are


def permuted(
    source: Source,
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
    _check_tasks("permuted", tasks, seed)
    elements = images.train[0].numel()
    sizes = (train_samples, validation_samples, test_samples)
    made = []
    for index in range(tasks):
        order = np.random.default_rng([seed, _PERMUTATION, index]).permutation(elements)
        normalize, reshape = _finish(images, flat)
        transforms = Compose((normalize, Permute(torch.from_numpy(order)), reshape))
        made.append(_task(images, f"permutation {index + 1}", index, transforms, sizes, seed))
    return _stream(f"permuted-{images.name}", images, made, images.n_classes, seed, sizes, flat)


def split(
    source: Source,
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
    _check_tasks("split", tasks, seed)
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
        task = _task(images, name, index, Compose(_finish(images, flat)), sizes, seed, classes)
        made.append(task if scenario == "task" else replace(task, classes=None))
    parameters = (sizes, flat, scenario, classes_per_task, order)
    return _stream(f"split-{images.name}", images, made, images.n_classes, seed, *parameters)


def rotated(
    source: Source,
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
    _check_tasks("rotated", len(angles), seed)
    if len(images.shape) != 2:
        raise DataError(
            f"rotated: items of {images.name} have shape {list(images.shape)}; expected [height, width]"
        )
    sizes = (train_samples, validation_samples, test_samples)
    made = []
    for index, angle in enumerate(angles):
        transform = Compose((Rotate(float(angle)), *_finish(images, flat)))
        made.append(_task(images, f"{angle:g}°", index, transform, sizes, seed))
    return _stream(f"rotated-{images.name}", images, made, images.n_classes, seed, sizes, flat, list(angles))


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


def by_name(name: str, tasks: int | None = None, *, seed: int = 0, **options: Any) -> Stream:
    """A stream by its name: `permuted-`, `split-` or `rotated-` and the name of a data set.

    `options` are those of the function of that name. Raises UnknownNameError with the nearest name.

    >>> by_name("split-mnist", tasks=3, seed=1).n_classes
    10
    """
    makers: dict[str, Callable[..., Stream]] = {"permuted": permuted, "split": split, "rotated": rotated}
    kind, _, source = name.partition("-")
    if kind not in makers or source not in SOURCES:
        names = [f"{maker}-{known}" for maker in makers for known in SOURCES]
        raise UnknownNameError(f"no stream is called {name!r}{nearest(name, names)}")
    return makers[kind](source, **({} if tasks is None else {"tasks": tasks}), seed=seed, **options)


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
    order = np.random.default_rng([seed, _DIVISION]).permutation(n)
    test_part, validation_part, train_part = (
        samples.subset(torch.from_numpy(np.sort(part)))
        for part in np.split(order, [n_test, n_test + n_validation])
    )
    return Task(name, train_part, validation_part, test_part, classes)


def as_images(source: Source) -> Images:
    """Images from a name, from images, or from own (train, train labels, test, test labels)."""
    if isinstance(source, Images):
        return source
    if isinstance(source, str):
        return load(source)
    if isinstance(source, tuple) and len(source) == 4:
        return own_images(*source)
    raise DataError(
        f"cannot make a stream of {type(source).__name__}; expected a name, Images, or arrays "
        "(train, train labels, test, test labels)"
    )


# Independent random streams drawn from one seed.
_DIVISION, _PERMUTATION, _CLASS_ORDER = 1, 2, 3


def _task(
    images: Images,
    name: str,
    index: int,
    transform: Transform,
    sizes: Sizes,
    seed: int,
    classes: tuple[int, ...] | None = None,
) -> Task:
    """One task over all samples, or over those of some classes."""
    n_train, n_validation, n_test = sizes
    rng = np.random.default_rng([seed, _DIVISION])
    rows = rng.permutation(_rows(images.train_labels, classes))
    test_rows = rng.permutation(_rows(images.test_labels, classes))
    if n_validation is None:
        n_validation = len(rows) // 10
    available = len(rows) - n_validation
    n_train = available if n_train is None else n_train
    n_test = len(test_rows) if n_test is None else n_test
    if n_train < 1 or n_test < 1 or n_validation < 0:
        raise EmptyTaskError(
            f"{images.name}, {name}: {n_train} training, {n_validation} validation, {n_test} test samples; "
            f"expected at least 1, 0 and 1, of {len(rows)} for the first two and {len(test_rows)} for test"
        )
    if n_train > available or n_test > len(test_rows):
        raise DataError(
            f"{images.name}, {name}: {n_train} training, {n_validation} validation, {n_test} test samples; "
            f"there are {len(rows)} for the first two together and {len(test_rows)} for test"
        )

    def part(inputs: Tensor, labels: Tensor, chosen: np.ndarray[Any, Any]) -> Arrays:
        return Arrays(inputs, labels, transform, torch.from_numpy(np.sort(chosen)))

    return Task(
        name,
        part(images.train, images.train_labels, rows[n_validation : n_validation + n_train]),
        part(images.train, images.train_labels, rows[:n_validation]),
        part(images.test, images.test_labels, test_rows[:n_test]),
        classes,
        index,
    )


def _stream(
    name: str, images: Images, tasks: list[Task], n_classes: int, seed: int, *parameters: object
) -> Stream:
    """A stream whose tasks carry the checksum of data and parameters."""
    marked = []
    for task in tasks:
        text = repr((name, images.checksum, seed, task.index, task.name, parameters))
        marked.append(replace(task, checksum=hashlib.sha256(text.encode()).hexdigest()))
    return Stream(tuple(marked), name, n_classes)


def _rows(labels: Tensor, classes: tuple[int, ...] | None) -> np.ndarray[Any, Any]:
    values = labels.numpy()
    return np.flatnonzero(np.isin(values, classes)) if classes is not None else np.arange(len(values))


def _finish(images: Images, flat: bool) -> tuple[Transform, Transform]:
    shape = (
        (images.train[0].numel(),) if flat else (1, *images.shape) if len(images.shape) == 2 else images.shape
    )
    return Normalize(images.mean, images.std or 1.0), Reshape(shape)


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


def _check_tasks(kind: str, tasks: int, seed: int) -> None:
    if tasks < 1:
        raise EmptyTaskError(f"{kind}: a stream of {tasks} tasks; give at least 1")
    if seed < 0:
        raise ConfigError(f"{kind}: seed must be at least 0, got {seed}")


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
