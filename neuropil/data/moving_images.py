"""Still pictures moved before an event camera, as N-MNIST was recorded: each becomes a recording of events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from neuropil.data.events import Events
from neuropil.data.video_events import video_to_events
from neuropil.errors import ConfigError, ShapeError

Waypoints = Sequence[tuple[float, float]]

TRIANGLE: Waypoints = ((0.0, 0.0), (3.0, 6.0), (6.0, 0.0), (0.0, 0.0))  # (x, y) in pixels: three saccades
_AT_ONCE = 100  # pictures side by side in one video


def moving_images_to_events(
    images: Any,
    *,
    path: Waypoints = TRIANGLE,
    duration: float = 60.0,
    frames_per_leg: int = 4,
    margin: int = 3,
    threshold: float = 0.25,
    offset: float = 1.0,
) -> list[Events]:
    """One event array a picture: what an event camera sees while the picture moves along `path`.

    Pictures that are small beside a saccade's three legs are what event data sets such as N-MNIST hold: Orchard et al.
    (2015), "Converting static image datasets to spiking neuromorphic datasets using saccades". Between frames the
    picture is shifted by parts of a pixel, with linear interpolation.

    Args:
        images: `[images, height, width]`, bytes or intensities >= 0.
        path: Corners (x, y) of the movement in pixels, each leg taking an equal time.
        duration: Of the whole path, milliseconds.
        frames_per_leg: Pictures of the film between two corners; light changes evenly between them.
        margin: Dark pixels around the picture: recordings are of `[height + 2 margin, width + 2 margin]`.
        threshold, offset: Of the camera, see `video_to_events`; the larger, the fewer events.

    Raises:
        ShapeError: The images are no `[images, height, width]`.
        ConfigError: A setting is out of range.

    >>> square = torch.zeros(1, 8, 8)
    >>> square[:, 2:6, 2:6] = 1.0
    >>> (events,) = moving_images_to_events(square, path=((0, 0), (2, 0)), margin=2)
    >>> sorted({int(x) for x in events["x"][events["p"] == 1]})  # its right edge brightens two columns
    [8, 9]
    """
    frames = torch.as_tensor(np.asarray(images))
    if frames.dim() != 3:
        raise ShapeError(
            f"moving_images_to_events: images are {list(frames.shape)}, expected [images, height, width]"
        )
    if len(path) < 2 or frames_per_leg < 1 or margin < 0:
        raise ConfigError(
            f"moving_images_to_events: path of {len(path)} corners, frames_per_leg={frames_per_leg}, "
            f"margin={margin}; expected at least 2, 1 and 0"
        )
    if not 0 < duration < math.inf:
        raise ConfigError(f"moving_images_to_events.duration: got {duration}, expected milliseconds > 0")
    light = frames.double() / (255.0 if frames.dtype == torch.uint8 else 1.0)
    light = functional.pad(light, (margin, margin, margin, margin))
    steps = (len(path) - 1) * frames_per_leg
    found: list[Events] = []
    for pictures in light.split(_AT_ONCE):
        film = torch.stack([_shifted(pictures, x, y) for x, y in _positions(path, frames_per_leg)])
        wide = film.permute(0, 2, 1, 3).flatten(2)  # side by side: one camera sees all
        events = video_to_events(wide, 1000.0 * steps / duration, threshold=threshold, offset=offset)
        found += _cut(events, len(pictures), pictures.shape[-1])
    return found


def _positions(path: Waypoints, frames_per_leg: int) -> list[tuple[float, float]]:
    corners = np.asarray(path, np.float64)
    times = np.linspace(0, len(corners) - 1, (len(corners) - 1) * frames_per_leg + 1)
    x, y = (np.interp(times, np.arange(len(corners)), corners[:, axis]) for axis in (0, 1))
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _shifted(pictures: Tensor, x: float, y: float) -> Tensor:
    """Pictures moved right by `x` and down by `y` pixels; what enters is dark."""
    for axis, by in ((-1, x), (-2, y)):
        whole = math.floor(by)
        near, far = _rolled(pictures, whole, axis), _rolled(pictures, whole + 1, axis)
        pictures = near + (by - whole) * (far - near)
    return pictures


def _rolled(pictures: Tensor, by: int, axis: int) -> Tensor:
    length = pictures.shape[axis]
    if by == 0:
        return pictures
    moved = torch.zeros_like(pictures)
    if abs(by) < length:
        source = pictures.narrow(axis, max(0, -by), length - abs(by))
        moved.narrow(axis, max(0, by), length - abs(by)).copy_(source)
    return moved


def _cut(events: Events, pictures: int, width: int) -> list[Events]:
    """Events of each picture, in its own coordinates, still in the order of time."""
    owner = events["x"] // width
    order = np.argsort(owner, kind="stable")
    ends = np.searchsorted(owner[order], np.arange(1, pictures))
    parts = np.split(events[order], ends)
    for index, part in enumerate(parts):
        part["x"] -= index * width
    return parts
