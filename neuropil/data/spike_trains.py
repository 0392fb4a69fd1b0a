"""Spike trains drawn at random, alike in rate and different in how their spikes follow each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuropil.errors import ConfigError, DataError

if TYPE_CHECKING:
    from jaxtyping import Float


@torch.no_grad()
def markov_spikes(
    rates: Float[Tensor, "batch ..."],
    persistence: float | Tensor,
    time_steps: int,
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "time batch ..."]:
    """Trains in which a spike follows a spike with probability `persistence`, and a step fires with `rates` in all.

    `rates` are spikes per step, in [0, 1); `persistence`, a number or a tensor that broadcasts with them, lies in
    [0, 1]; where both are equal the train is a Bernoulli process. Every train starts in its stationary state.

    Raises ConfigError for fewer than 1 step, DataError where rate and persistence do not go together: a rate of `r`
    needs a persistence of at least `(2 r - 1) / r`.

    >>> markov_spikes(torch.full((1,), 0.5), 0.0, 4, generator=torch.Generator().manual_seed(0)).flatten().tolist()
    [1.0, 0.0, 1.0, 0.0]
    """
    if time_steps < 1:
        raise ConfigError(f"markov_spikes.time_steps: got {time_steps}, expected 1 or more")
    stay = torch.as_tensor(persistence, dtype=rates.dtype).expand_as(rates)
    start = rates * (1 - stay) / (1 - rates)
    for name, values in (("rates", rates), ("persistence", stay), ("persistence", start)):
        if not bool(((values >= 0) & (values <= 1)).all()) or (name == "rates" and bool((values == 1).any())):
            raise DataError(f"markov_spikes: {name} of these rates must be probabilities, rates below 1")
    spikes = rates.new_empty(time_steps, *rates.shape)
    now = rates
    for t in range(time_steps):
        spikes[t] = torch.rand(rates.shape, generator=generator, dtype=rates.dtype) < now
        now = torch.where(spikes[t] > 0, stay, start)
    return spikes


@torch.no_grad()
def switching_spikes(
    rates: Float[Tensor, " batch"],
    time_constants: Float[Tensor, " batch"],
    time_steps: int,
    trains: int,
    *,
    depth: float = 0.9,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "time batch trains"]:
    """Trains that share a rate which switches between high and low: what tells samples apart is how slowly.

    The shared rate is `rate * (1 + depth)` or `rate * (1 - depth)`, each half of the time; its correlation falls as
    `exp(-lag / time_constant)`, in steps. A time constant of 0 gives independent trains of constant rate. All have
    `rates` spikes per step on average.

    Raises ConfigError for settings out of range, DataError for rates that switching carries above 1.

    >>> spikes = switching_spikes(torch.full((3,), 0.1), torch.tensor([0.0, 2.0, 30.0]), 50, trains=4)
    >>> spikes.shape
    torch.Size([50, 3, 4])
    """
    if time_steps < 1 or trains < 1 or not 0 <= depth <= 1:
        raise ConfigError(
            f"switching_spikes: time_steps={time_steps}, trains={trains}, depth={depth}; expected 1 or more steps "
            "and trains, depth in [0, 1]"
        )
    if bool((time_constants < 0).any()) or not bool(((rates >= 0) & (rates * (1 + depth) <= 1)).all()):
        raise DataError(
            f"switching_spikes: expected time constants >= 0 and rates from 0 to {1 / (1 + depth):.3g}"
        )
    keep = torch.exp(-1 / time_constants.clamp_min(1e-6))
    swing = torch.where(time_constants > 0, depth, 0.0).to(rates.dtype)
    fresh = torch.rand(2, time_steps, len(rates), generator=generator, dtype=rates.dtype)
    side = torch.empty(time_steps, len(rates), dtype=rates.dtype)
    for t in range(time_steps):
        side[t] = torch.sign(fresh[0, t] - 0.5)
        if t:
            side[t] = torch.where(fresh[1, t] < keep, side[t - 1], side[t])
    chance = (rates * (1 + swing * side)).unsqueeze(-1)
    drawn = torch.rand(time_steps, len(rates), trains, generator=generator, dtype=rates.dtype)
    return (drawn < chance).to(rates.dtype)
