"""Images seen as a scanner sees them: row after row in time, a channel a column, a bright pixel a likely spike."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from neuropil import data
from neuropil.errors import ConfigError


class Split(NamedTuple):
    """Images of a trial, and their labels."""

    images: Tensor  # bytes [samples, height, width]
    labels: Tensor


class Splits(NamedTuple):
    """What a trial learns from and what it is judged on."""

    train: Split
    judged: Split


def choose(dataset: str, train: int, judged: int, seed: int, evaluate_on: str) -> Splits:
    """`train` random images of the training part; `judged` others of it ("validation") or of the test part."""
    images = data.load(dataset)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images.train), generator=generator)
    if train + judged > len(order) or judged > len(images.test):
        raise ConfigError(
            f"train_samples: {train} images and {judged} to judge on, but {dataset} has {len(order)} and "
            f"{len(images.test)}"
        )
    chosen = Split(images.train[order[:train]], images.train_labels[order[:train]])
    if evaluate_on == "validation":
        held = order[train : train + judged]
        return Splits(chosen, Split(images.train[held], images.train_labels[held]))
    tested = torch.randperm(len(images.test), generator=generator)[:judged]
    return Splits(chosen, Split(images.test[tested], images.test_labels[tested]))


def row_spikes(images: Tensor, silence: int, generator: torch.Generator) -> Tensor:
    """Spikes `[height + silence, samples, width]`: each pixel fires with its brightness as probability."""
    bright = images.permute(1, 0, 2).float() / 255
    spikes = (torch.rand(bright.shape, generator=generator) < bright).float()
    return functional.pad(spikes, (0, 0, 0, 0, 0, silence))


def data_checksum(dataset: str) -> str:
    """What identifies a data set's images."""
    return data.load(dataset).checksum
