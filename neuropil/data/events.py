"""Events of event cameras and silicon cochleas: structured arrays, frames, and data sets of them.

An event array is a one-dimensional structured array with the fields `t` (microseconds), `x` and, where the sensor has
them, `y` and `p` (polarity), of any integer types and in any order: what Tonic's data sets give. Frames count events:
`[time, polarity, height, width]`, or `[time, polarity, width]` for a sensor of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from neuropil.data.task import Task
from neuropil.errors import ConfigError, DataError, EmptyTaskError

if TYPE_CHECKING:
    from jaxtyping import Float

EVENT = np.dtype([("t", np.int64), ("x", np.int16), ("y", np.int16), ("p", np.int8)])
Events = np.ndarray[Any, Any]


def make_events(t: Any, x: Any, y: Any = 0, p: Any = 1) -> Events:
    """Events from columns of numbers, in the order of their time.

    Raises DataError when the columns differ in length.

    >>> make_events([20, 10], [3, 4])["x"].tolist()
    [4, 3]
    """
    try:
        columns = np.broadcast_arrays(*(np.atleast_1d(np.asarray(column)) for column in (t, x, y, p)))
    except ValueError:
        raise DataError("make_events: columns differ in length; expected one number per event") from None
    events = np.empty(columns[0].shape[0], EVENT)
    for name, column in zip(("t", "x", "y", "p"), columns, strict=True):
        events[name] = column
    return events[np.argsort(events["t"], kind="stable")]


def events_to_frames(
    events: Events,
    sensor_size: Sequence[int],
    *,
    time_steps: int | None = None,
    step: float | None = None,
) -> Float[Tensor, "time polarity ..."]:
    """Events counted in `time_steps` equal parts of the recording, or in steps of `step` microseconds.

    `sensor_size` is (width, height, polarities), as Tonic has it; a height of 1 leaves the axis out. Time begins at
    the first event. With both given, the recording is cut, or filled with silence, to `time_steps` steps of `step`.
    A polarity that is stored as -1 counts as 0.

    Raises ConfigError when neither is given or one is out of range, DataError for an array without the fields, or
    an event outside the sensor.

    >>> frames = events_to_frames(make_events([0, 5, 9], [1, 1, 0], [0, 0, 1], [1, 1, 0]), (2, 2, 2), time_steps=2)
    >>> frames[:, 1].tolist()  # what got brighter, [time, height, width]
    [[[0.0, 1.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]]
    """
    width, height, polarities = _check_sensor(sensor_size)
    columns = _columns(events)
    if time_steps is None and step is None:
        raise ConfigError("events_to_frames: give time_steps, step (in microseconds) or both")
    if (time_steps is not None and time_steps < 1) or (step is not None and not step > 0):
        raise ConfigError(
            f"events_to_frames: time_steps={time_steps}, step={step}; expected at least 1 and a time > 0"
        )
    t, x, y, p = columns
    t = t - t.min() if len(t) else t
    if step is None:
        span = int(t.max()) + 1 if len(t) else 1
        index = t * int(time_steps or 1) // span
    else:
        index = np.floor(t / step).astype(np.int64)
    steps = time_steps if time_steps is not None else (int(index.max()) + 1 if len(index) else 0)
    p = np.where(p < 0, 0, p) if polarities > 1 else np.zeros_like(x)
    for name, column, size in (("x", x, width), ("y", y, height), ("p", p, polarities)):
        if len(column) and not 0 <= column.min() <= column.max() < size:
            raise DataError(
                f"events_to_frames: {name} lies in [{column.min()}, {column.max()}], the sensor "
                f"{tuple(sensor_size)} (width, height, polarities) has 0 to {size - 1}"
            )
    inside = index < steps
    place = ((index * polarities + p) * height + y) * width + x
    counts = np.bincount(place[inside], minlength=steps * polarities * height * width)
    frames = torch.from_numpy(counts.astype(np.float32))
    return (
        frames.view(steps, polarities, height, width) if height > 1 else frames.view(steps, polarities, width)
    )


def frames_to_events(frames: Float[Tensor, "time polarity ..."], step: int = 1000) -> Events:
    """Events that `events_to_frames(..., step=step)` counts into the same frames, at the beginnings of the steps.

    Silence before the first event is lost, as time begins there. Raises DataError unless frames are whole counts.

    >>> frames_to_events(torch.tensor([[[2.0, 0.0]]]), step=10)["t"].tolist()
    [0, 0]
    """
    if frames.dim() not in (3, 4) or not ((frames >= 0) & (frames == frames.round())).all():
        raise DataError(
            f"frames_to_events: {list(frames.shape)} frames; expected whole counts [time, polarity, (height,) width]"
        )
    full = frames if frames.dim() == 4 else frames.unsqueeze(2)
    t, p, y, x = np.nonzero(full.numpy())
    times = full.numpy()[t, p, y, x].astype(np.int64)
    return make_events(*(np.repeat(column, times) for column in (t * step, x, y, p)))


class EventSamples(Dataset[tuple[Tensor, int]]):
    """A data set of (event array, label), such as Tonic's, as (frames, label).

    `dataset` is anything with a length and items (events, label); `sensor_size` is its own attribute when it has
    one. Settings and errors are those of `events_to_frames`; as batches need one length, `time_steps` is required.
    `binary` keeps whether there was an event instead of how many. Frames of a batch are `[batch, time, ...]`.

    >>> recordings = [(make_events([0, 7], [1, 0]), 3)]
    >>> frames, label = EventSamples(recordings, 4, sensor_size=(2, 1, 1))[0]
    >>> frames[:, 0].tolist(), label
    ([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]], 3)
    """

    def __init__(
        self,
        dataset: Any,
        time_steps: int,
        *,
        step: float | None = None,
        sensor_size: Sequence[int] | None = None,
        binary: bool = False,
    ) -> None:
        size = getattr(dataset, "sensor_size", None) if sensor_size is None else sensor_size
        if size is None:
            raise ConfigError(
                f"EventSamples: {type(dataset).__name__} has no sensor_size; give (width, height, polarities)"
            )
        _check_sensor(size)
        if time_steps < 1:
            raise ConfigError(f"EventSamples.time_steps: got {time_steps}, expected at least 1")
        self.dataset, self.time_steps, self.step, self.binary = dataset, time_steps, step, binary
        self.sensor_size = tuple(int(length) for length in size)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        item = self.dataset[index]
        if not isinstance(item, tuple) or len(item) != 2:
            raise DataError(f"EventSamples: item {index} is no pair of events and a label")
        events, label = item
        frames = events_to_frames(events, self.sensor_size, time_steps=self.time_steps, step=self.step)
        return (frames.clamp_max(1) if self.binary else frames), int(label)


def event_task(
    train: Any,
    test: Any,
    time_steps: int,
    *,
    step: float | None = None,
    sensor_size: Sequence[int] | None = None,
    binary: bool = False,
    validation: float = 0.1,
    seed: int = 0,
    name: str = "events",
) -> Task:
    """A task from two data sets of (event array, label): Tonic's are taken as they are.

    A fraction `validation` of the training samples, drawn by the seed, is set aside to choose settings on. Other
    settings are those of `EventSamples`. Raises EmptyTaskError when no training sample remains.

    >>> recordings = [(make_events([0, 7], [1, 0]), label) for label in range(10)]
    >>> task = event_task(recordings, recordings[:3], 4, sensor_size=(2, 1, 1), validation=0.2)
    >>> len(task.train), len(task.validation), len(task.test)
    (8, 2, 3)
    """
    count = len(train)
    held = round(validation * count)
    if validation < 0 or held >= count:
        raise EmptyTaskError(f"{name}: validation={validation} of {count} samples leaves none to train on")
    samples = EventSamples(train, time_steps, step=step, sensor_size=sensor_size, binary=binary)
    order = np.random.default_rng(seed).permutation(count)
    return Task(
        name,
        Subset(samples, sorted(order[held:].tolist())),
        Subset(samples, sorted(order[:held].tolist())),
        EventSamples(test, time_steps, step=step, sensor_size=sensor_size, binary=binary),
    )


def _columns(events: Events) -> tuple[Events, Events, Events, Events]:
    """Time, place and polarity as 64-bit integers, zeros for what the sensor does not have."""
    names = getattr(getattr(events, "dtype", None), "names", None) or ()
    if not {"t", "x"} <= set(names) or events.ndim != 1:
        raise DataError(
            f"events have the fields {', '.join(names) or 'none'}; expected a structured array with t, x (y, p)"
        )
    zeros = np.zeros(len(events), np.int64)
    t, x, y, p = (events[name].astype(np.int64) if name in names else zeros for name in ("t", "x", "y", "p"))
    return t, x, y, p


def _check_sensor(sensor_size: Sequence[int]) -> tuple[int, int, int]:
    sizes = [int(length) for length in sensor_size]
    if len(sizes) != 3 or min(sizes) < 1:
        raise ConfigError(
            f"sensor_size: got {sensor_size}, expected (width, height, polarities), each at least 1"
        )
    return sizes[0], sizes[1], sizes[2]
