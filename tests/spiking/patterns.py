"""A small task in spikes for the tests of learning rules: each class has channels of its own that are busy."""

from __future__ import annotations

import torch

from neuropil.data.task import Batch

CLASSES, CHANNELS, STEPS = 3, 12, 20


def spike_batch(count: int = 24, seed: int = 0, steps: int = STEPS) -> Batch:
    """Spikes `[batch, time, channels]`."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    rates = torch.full((CLASSES, CHANNELS), 0.05)
    for label in range(CLASSES):
        rates[label, label::CLASSES] = 0.5
    chance = torch.rand(count, steps, CHANNELS, generator=generator)
    return Batch((chance < rates[labels].unsqueeze(1)).float(), labels)
