"""From a data set of images to one task: who trains, who validates, who tests, and what the task's checksum is."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuropil.data.arrays import Arrays
from neuropil.data.images import Images, load, own_images
from neuropil.data.task import Stream, Task
from neuropil.data.transforms import Normalize, Reshape, Transform
from neuropil.errors import ConfigError, DataError, EmptyTaskError

ImageSource = str | Images | tuple[Any, Any, Any, Any]  # a name, images, or own (train, labels, test, labels)
Sizes = tuple[
    int | None, int | None, int | None
]  # samples of train, validation and test; None takes all there are


def as_images(source: ImageSource) -> Images:
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


DIVISION = 1  # number of the random stream, among those drawn from one seed, that divides samples


def task_of_images(
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
    rng = np.random.default_rng([seed, DIVISION])
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


def marked_stream(
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


def finish(images: Images, flat: bool) -> tuple[Transform, Transform]:
    """What ends every transform of a stream: normalisation with the images' statistics, and the item's shape."""
    shape = (
        (images.train[0].numel(),) if flat else (1, *images.shape) if len(images.shape) == 2 else images.shape
    )
    return Normalize(images.mean, images.std or 1.0), Reshape(shape)


def check_tasks(kind: str, tasks: int, seed: int) -> None:
    """Refuse a stream without tasks, and a negative seed."""
    if tasks < 1:
        raise EmptyTaskError(f"{kind}: a stream of {tasks} tasks; give at least 1")
    if seed < 0:
        raise ConfigError(f"{kind}: seed must be at least 0, got {seed}")
