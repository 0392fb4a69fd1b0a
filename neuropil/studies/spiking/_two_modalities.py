"""Digits in two modalities: moved before an event camera, and other digits scanned row by row."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from neuropil import data

STEPS, PIXELS = 50, 256
ROW_STEPS, COLUMNS = 6, 8


class Scene(NamedTuple):
    """Both modalities of one seed: time first, to learn from and to judge by."""

    vision: Tensor
    labels: Tensor
    judged: Tensor
    judged_labels: Tensor
    scanned: Tensor
    scanned_labels: Tensor
    judged_scanned: Tensor
    judged_scanned_labels: Tensor


@lru_cache(maxsize=2)  # arms of a seed see the same recordings
def make_scene(dataset: str, train: int, test: int, seed: int, validation: bool) -> Scene:
    """Moving digits and scanned ones."""
    images = data.load(dataset)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images.train))
    if validation:
        pictures, labels, chosen = images.train, images.train_labels, order[train : train + test]
    else:
        pictures, labels = images.test, images.test_labels
        chosen = rng.permutation(len(images.test))[:test]
    digits = load_digits()
    scanned, names = scan(digits.data), torch.from_numpy(digits.target).long()
    mixed = np.random.default_rng([seed, 1]).permutation(len(names))
    known, unknown = (mixed[:900], mixed[900:1300]) if validation else (mixed[:1300], mixed[1300:])
    return Scene(
        brightening(images.train[order[:train]]), images.train_labels[order[:train]],
        brightening(pictures[chosen]), labels[chosen],
        scanned[:, known], names[known], scanned[:, unknown], names[unknown],
    )  # fmt: skip


def brightening(pictures: Tensor) -> Tensor:
    """Whether each 2 x 2 pixels of the middle 32 x 32 got brighter in a step: `[time, pictures, 256]`."""
    found = np.zeros((len(pictures), STEPS, 16, 16), np.float32)
    for frames, events in zip(found, data.moving_images_to_events(pictures), strict=True):
        on = events[events["p"] == 1]
        t = np.minimum(on["t"] * STEPS // 60_000, STEPS - 1)
        x, y = (on[name].astype(np.int64) - 1 for name in ("x", "y"))
        inside = (x >= 0) & (x < 32) & (y >= 0) & (y < 32)
        frames[t[inside], y[inside] // 2, x[inside] // 2] = 1.0
    return torch.from_numpy(found.reshape(len(pictures), STEPS, PIXELS).swapaxes(0, 1).copy())


def scan(pictures: Any) -> Tensor:
    """Rows one after the other, a pixel firing in proportion to its ink, evenly: `[time, pictures, 8]`."""
    ink = np.asarray(pictures, np.float64).reshape(-1, 8, 1, COLUMNS) / 16
    steps = np.arange(ROW_STEPS + 1).reshape(1, 1, -1, 1)
    spikes = np.diff(np.floor(steps * ink + 1e-9), axis=2)
    return torch.from_numpy(
        spikes.reshape(len(ink), 8 * ROW_STEPS, COLUMNS).swapaxes(0, 1).astype(np.float32)
    )


def binned(x: Tensor, bins: int) -> Tensor:
    """Counts in equal parts of the run: no liquid, but the order of events is kept."""
    return x.view(bins, -1, *x.shape[1:]).sum(1).transpose(0, 1).flatten(1)
