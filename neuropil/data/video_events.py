"""What an event camera would have seen of a video: events where the logarithm of the light has changed enough."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neuropil.data.events import Events, make_events
from neuropil.errors import ConfigError, DataError, ShapeError

if TYPE_CHECKING:
    from jaxtyping import Float

_MICROSECONDS = 1e6


def video_to_events(
    video: Float[Tensor, "time height width"],
    frames_per_second: float,
    *,
    threshold: float = 0.2,
    offset: float = 1e-3,
    refractory: float = 0.0,
    threshold_spread: float = 0.0,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> Events:
    """Events of a dynamic vision sensor: each pixel fires when its log intensity has moved by `threshold`.

    Between two frames the log intensity is taken to move evenly, so events have times between the frames, in whole
    microseconds; polarity is 1 for brighter and 0 for darker. Rebecq, Gehrig and Scaramuzza (2018), "ESIM: an open
    event camera simulator"; noise and mismatch: Hu, Liu and Delbruck (2021), "v2e".

    Args:
        video: Intensities >= 0, a tensor or array; bytes are divided by 255.
        frames_per_second: Of the video, > 0.
        threshold: Contrast, in natural logarithms.
        offset: Added to the intensity before the logarithm, > 0: darkness has no logarithm.
        refractory: Microseconds in which a pixel stays silent after an event; what it missed is lost.
        threshold_spread: Standard deviation of the pixels' thresholds, as a share of `threshold`.
        noise: Events per pixel and second that have no cause.
        generator: For the spread and the noise.

    Raises:
        ConfigError: A setting is out of range.
        ShapeError, DataError: The video is no `[time, height, width]` of intensities.

    >>> video = torch.exp(torch.tensor([0.0, 1.0])).view(2, 1, 1)  # e times brighter within a second
    >>> video_to_events(video, 1.0, threshold=0.4, offset=1e-9)["t"].tolist()
    [400000, 800000]
    """
    for name, value, low in (
        ("frames_per_second", frames_per_second, 0.0),
        ("threshold", threshold, 0.0),
        ("offset", offset, 0.0),
    ):
        if not low < value < math.inf:
            raise ConfigError(f"video_to_events.{name}: got {value}, expected a number > 0")
    for name, value in (("refractory", refractory), ("threshold_spread", threshold_spread), ("noise", noise)):
        if not 0 <= value < math.inf:
            raise ConfigError(f"video_to_events.{name}: got {value}, expected a number >= 0")
    light = _log_light(video, offset)
    interval = _MICROSECONDS / frames_per_second
    thresholds = np.full(light.shape[1:], float(threshold))
    if threshold_spread:
        spread = torch.randn(thresholds.shape, generator=generator, dtype=torch.double).numpy()
        thresholds = np.maximum(thresholds * (1 + threshold_spread * spread), 0.05 * threshold)
    columns = _crossings(light, thresholds, interval, refractory)
    if noise:
        duration = (len(light) - 1) * interval
        columns.append(_noise(light.shape[1:], noise * duration / _MICROSECONDS, duration, generator))
    if not columns:
        return make_events([], [], [], [])
    t, x, y, p = (np.concatenate([part[i] for part in columns]) for i in range(4))
    return make_events(np.rint(t), x, y, p)


def _log_light(video: Any, offset: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    frames = video.numpy() if isinstance(video, Tensor) else np.asarray(video)
    if frames.ndim != 3 or len(frames) < 1:
        raise ShapeError(
            f"video_to_events: video is {list(frames.shape)}, expected [time, height, width], grey"
        )
    light = frames.astype(np.float64) / (255.0 if frames.dtype == np.uint8 else 1.0)
    if not (np.isfinite(light).all() and (light >= 0).all()):
        raise DataError("video_to_events: intensities must be finite and >= 0")
    return np.log(light + offset)


def _crossings(light: Any, thresholds: Any, interval: float, refractory: float) -> list[tuple[Any, ...]]:
    """Columns (t, x, y, p) of the events between every two frames."""
    level = light[0].copy()
    last = np.full(level.shape, -np.inf)
    found: list[tuple[Any, ...]] = []
    for index in range(len(light) - 1):
        before, after = light[index], light[index + 1]
        ratio = (after - level) / thresholds
        # a change that is a whole number of thresholds up to rounding has reached the last of them
        crossings = np.trunc(ratio + 1e-9 * np.sign(ratio)).astype(np.int64)
        counts, sign = np.abs(crossings), np.sign(crossings)
        for k in range(1, int(counts.max(initial=0)) + 1):
            y, x = np.nonzero(counts >= k)
            to = level[y, x] + k * sign[y, x] * thresholds[y, x]
            rise = after[y, x] - before[y, x]
            t = (index + np.clip((to - before[y, x]) / rise, 0, 1)) * interval
            heard = t - last[y, x] >= refractory
            y, x, t = y[heard], x[heard], t[heard]
            last[y, x] = t
            found.append((t, x, y, sign[y, x] > 0))
        level += crossings * thresholds
    return found


def _noise(
    shape: tuple[int, ...], mean: float, duration: float, generator: torch.Generator | None
) -> tuple[Any, ...]:
    """Poisson events of any pixel, time and polarity."""
    counts = torch.poisson(torch.full(shape, mean, dtype=torch.double), generator=generator).long()
    y, x = (np.repeat(axis, counts.numpy().ravel()) for axis in np.indices(shape).reshape(2, -1))
    t = torch.rand(len(x), generator=generator, dtype=torch.double).numpy() * duration
    return t, x, y, torch.randint(2, (len(x),), generator=generator).numpy()
