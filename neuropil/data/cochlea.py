"""Sound as a cochlea hears it: energies in bands of the mel scale, and the spikes that tell of their changes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from neuropil.data.encoding import level_encode
from neuropil.errors import ConfigError, DataError, ShapeError

if TYPE_CHECKING:
    from jaxtyping import Float


def mel_filters(
    channels: int, frequencies: int, rate: float, *, low: float = 80.0, high: float | None = None
) -> Float[Tensor, "channels frequencies"]:
    """Triangular filters, evenly spaced on the mel scale, over `frequencies` bins from 0 Hz to half the `rate`.

    Centres lie between `low` and `high` Hz (half the rate by default); each filter is 1 at its centre and 0 at its
    neighbours' centres. `mel = 2595 log10(1 + f / 700)`: O'Shaughnessy (1987), "Speech communication".

    Raises ConfigError for a range that is empty or above half the rate, or channels too narrow to hold a bin.

    >>> mel_filters(20, 129, 8000).shape
    torch.Size([20, 129])
    """
    high = rate / 2 if high is None else high
    if channels < 1 or frequencies < 2 or not 0 <= low < high <= rate / 2:
        raise ConfigError(
            f"mel_filters: {channels} channels from {low:g} to {high:g} Hz at a rate of {rate:g}; expected at least 1 "
            f"and 0 <= low < high <= {rate / 2:g}"
        )
    ends = torch.linspace(_mel(low), _mel(high), channels + 2, dtype=torch.double)
    edges = 700 * (10 ** (ends / 2595) - 1)
    bins = torch.linspace(0, rate / 2, frequencies, dtype=torch.double)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp_min(0)
    empty = (filters.sum(1) == 0).nonzero().flatten().tolist()
    if empty:
        raise ConfigError(
            f"mel_filters: channel {empty[0]} of {channels} is narrower than the {rate / 2 / (frequencies - 1):.3g} Hz "
            "between frequencies; take fewer channels, a longer window or a higher low"
        )
    return filters.float()


def mel_energies(
    sound: Float[Tensor, "batch samples"],
    rate: float,
    *,
    channels: int = 32,
    step: float = 0.01,
    window: float = 0.032,
    low: float = 80.0,
    high: float | None = None,
) -> Float[Tensor, "time batch channels"]:
    """Power of a sound in bands of the mel scale, every `step` seconds, in windows of `window` seconds (Hann).

    Raises ConfigError for settings out of range, ShapeError and DataError for what is no sound.

    >>> mel_energies(torch.randn(2, 8000), 8000).shape
    torch.Size([101, 2, 32])
    """
    _check_sound(sound, rate, step, window)
    length, hop = round(window * rate), max(1, round(step * rate))
    bins = 2 ** math.ceil(math.log2(length))
    sound = functional.pad(sound, (bins // 2, bins // 2))
    shape = torch.hann_window(length, dtype=sound.dtype, device=sound.device)
    spectrum = torch.stft(sound, bins, hop, length, shape, center=False, return_complex=True)
    filters = mel_filters(channels, bins // 2 + 1, rate, low=low, high=high).to(sound)
    return (filters @ spectrum.abs().square()).permute(2, 0, 1)


def cochlea_encode(
    sound: Float[Tensor, "batch samples"],
    rate: float,
    *,
    channels: int = 32,
    step: float = 0.01,
    window: float = 0.032,
    low: float = 80.0,
    high: float | None = None,
    threshold: float = 6.0,
    floor: float = 60.0,
    limit: int | None = 1,
) -> Float[Tensor, "time batch 2 channels"]:
    """Spikes of a cochlea: each band of the mel scale tells when its level rose or fell by `threshold` decibels.

    Levels are decibels above a floor that lies `floor` below the loudest moment of the sound, so loudness does not
    matter; every sound begins in silence. `[:, :, 0]` are rises, `[:, :, 1]` falls. With `limit=1` (at most one spike
    per band, direction and step) they are 0 and 1; with None, counts. Like the address-event cochlea of Chan, Liu
    and van Schaik (2007), with the filters of `mel_energies`, whose settings and errors are taken over.

    >>> tone = torch.sin(2 * math.pi * 440 * torch.arange(4000) / 8000)
    >>> spikes = cochlea_encode(tone[None], 8000, channels=16)
    >>> spikes.shape, int(spikes[:, 0, 0].sum(0).argmax())
    (torch.Size([51, 1, 2, 16]), 3)
    """
    if not floor > 0:
        raise ConfigError(f"cochlea_encode.floor: got {floor}, expected decibels > 0")
    energies = mel_energies(sound, rate, channels=channels, step=step, window=window, low=low, high=high)
    loudest = energies.amax((0, 2), keepdim=True)
    # silence has no level: it stays on the floor
    share = torch.where(loudest > 0, energies / loudest, 0).clamp_min(10 ** (-floor / 10))
    levels = 10 * torch.log10(share) + floor
    silence = torch.zeros_like(levels[:1])
    return level_encode(torch.cat([silence, levels]), threshold, limit=limit)[1:]


def _mel(frequency: float) -> float:
    return 2595 * math.log10(1 + frequency / 700)


def _check_sound(sound: Tensor, rate: float, step: float, window: float) -> None:
    if sound.dim() != 2 or not sound.is_floating_point():
        raise ShapeError(f"sound is {sound.dtype} {list(sound.shape)}, expected floats [batch, samples]")
    if not (rate > 0 and step > 0 and window * rate >= 2):
        raise ConfigError(
            f"rate={rate:g} Hz, step={step:g} s, window={window:g} s; expected numbers > 0 and at least 2 samples "
            "in a window"
        )
    if not sound.isfinite().all():
        raise DataError("sound holds NaN or infinity, expected finite samples")
