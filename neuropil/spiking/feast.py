"""FEAST: features that an event camera's stream teaches by competition, each with its own selection threshold.

Afshar, Ralph, Xu, Tapson, van Schaik and Cohen (2020): Event-Based Feature Extraction Using Adaptive Selection
Thresholds. Sensors 20(6):1600. arXiv:1907.07853
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from neuropil.data.events import Events
from neuropil.errors import ConfigError, DataError, ShapeError, nearest
from neuropil.kernels.surfaces import (
    MISSED,
    NEVER,
    EventColumns,
    MatchRates,
    match_scan,
    surface_channels,
    time_surface_scan,
)
from neuropil.spiking.arrays import check_whole

Array = np.ndarray[Any, Any]
Channels = Literal["own", "all", "merged"]
Inference = Literal["nearest", "threshold"]

FEATURE_EVENT = np.dtype([("t", np.int64), ("x", np.int16), ("y", np.int16), ("p", np.int16)])


class TimeSurfaces(NamedTuple):
    """Surfaces of a stretch of events, and where the next stretch goes on."""

    surfaces: Array  # [events, channels shown, size, size], each of length one
    last: Array  # [channels, height, width], microseconds of each pixel's last event


class FeatureEvents(NamedTuple):
    """What a layer makes of a stretch of events, and where the next stretch goes on."""

    events: Events  # polarity is the winning feature; missed events are left out
    winners: Array  # [events that came in], in the order of time, -1 where the event was missed
    last: Array  # [channels, height, width], microseconds of each pixel's last event


def time_surfaces(
    events: Events,
    sensor_size: Sequence[int],
    *,
    size: int = 9,
    time_constant: float = 20.0,
    channels: Channels = "own",
    last: Array | None = None,
) -> TimeSurfaces:
    """How recent the events around each event are: `exp(-age / time_constant)`, brought to length one.

    Lagorce et al. (2017), "HOTS: a hierarchy of event-based time-surfaces for pattern recognition". Events may come in
    any order; surfaces are in the order of time. To go on with a recording in stretches, hand over `last`.

    Args:
        events: Structured array with `t` in microseconds, `x`, and where the sensor has them `y` and `p`.
        sensor_size: (width, height, polarities).
        size: Odd width of the square around an event, pixels; beyond the sensor it is empty.
        time_constant: Milliseconds, > 0.
        channels: `"own"`: events of the same polarity; `"all"`: a square for each polarity; `"merged"`: polarity aside.
        last: What the stretch before left.

    >>> from neuropil.data import make_events
    >>> surfaces, _ = time_surfaces(make_events([0, 10_000], [0, 1]), (3, 1, 1), size=3, time_constant=10.0)
    >>> (surfaces[1, 0, 1] / surfaces[1, 0, 1, 1]).round(3).tolist()  # the neighbour is one time constant old
    [0.368, 1.0, 0.0]
    """
    field = _Field("time_surfaces", sensor_size, size, time_constant, channels)
    last = field.start(last)
    flat = time_surface_scan(field.columns(events), last, radius=size // 2, tau=field.tau, own=field.own)
    return TimeSurfaces(flat.reshape(len(flat), field.shown, size, size), last)


class _Field:
    """A sensor and the square that is looked at; settings are checked once."""

    def __init__(
        self, caller: str, sensor_size: Sequence[int], size: int, time_constant: float, channels: str
    ) -> None:
        sizes = tuple(int(length) for length in sensor_size)
        if len(sizes) != 3 or min(sizes) < 1:
            raise ConfigError(
                f"{caller}.sensor_size: got {sensor_size}, expected (width, height, polarities)"
            )
        check_whole(caller, "size", size, 1)
        if size % 2 == 0:
            raise ConfigError(f"{caller}.size: got {size}, expected an odd number of pixels")
        if not 0 < time_constant < math.inf:
            raise ConfigError(f"{caller}.time_constant: got {time_constant}, expected milliseconds > 0")
        if channels not in get_args(Channels):
            raise ConfigError(
                f"{caller}.channels: got {channels!r}{nearest(str(channels), get_args(Channels))}"
            )
        self.caller, self.sizes, self.size = caller, sizes, size
        self.tau, self.own, self.merged = 1000.0 * time_constant, channels == "own", channels == "merged"
        self.channels = 1 if self.merged else sizes[2]
        self.shown = surface_channels(self.channels, self.own)

    def start(self, last: Array | None) -> Array:
        shape = (self.channels, self.sizes[1], self.sizes[0])
        if last is None:
            return np.full(shape, NEVER, np.int64)
        if last.shape != shape:
            raise ShapeError(f"{self.caller}: last is {list(last.shape)}, expected {list(shape)}")
        return last.astype(np.int64)  # a copy: what was handed over stays as it is

    def columns(self, events: Events) -> EventColumns:
        names = getattr(getattr(events, "dtype", None), "names", None) or ()
        if not {"t", "x"} <= set(names) or events.ndim != 1:
            raise DataError(
                f"{self.caller}: events have the fields {', '.join(names) or 'none'}; expected a structured "
                "array with t, x (y, p)"
            )
        zeros = np.zeros(len(events), np.int64)
        t, x, y, p = (events[name].astype(np.int64) if name in names else zeros for name in "txyp")
        p = zeros if self.channels == 1 else np.maximum(p, 0)  # a polarity stored as -1 counts as 0
        for name, column, most in zip("xyp", (x, y, p), self.sizes, strict=True):
            if len(column) and not 0 <= column.min() <= column.max() < most:
                raise DataError(
                    f"{self.caller}: {name} lies in [{column.min()}, {column.max()}], the sensor {self.sizes} "
                    f"(width, height, polarities) has 0 to {most - 1}"
                )
        order = np.argsort(t, kind="stable")
        return EventColumns(t[order], x[order], y[order], p[order])


class FEASTLayer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A layer of features that learns from events alone, every feature winning equally often.

    Each event is the time surface around it. The most similar of the features whose similarity exceeds their own
    threshold wins: it moves towards the surface and becomes pickier. An event that no feature takes lowers all
    thresholds. Where this settles, `features * rise * share = fall * missed`: equal shares, and a share of misses
    that is known beforehand (`expected_miss_rate`), so that convergence is seen without looking at a weight.

    `X` is a list of recordings, structured event arrays as event cameras and Tonic give them. `transform` counts how
    often each feature wins, per recording and region. `process` turns events into events whose polarity is the
    winning feature: the input of a next layer with `sensor_size=(width, height, features)`.

    Args:
        sensor_size: (width, height, polarities).
        features: Number of features.
        size: Odd width of the square around an event, pixels.
        time_constant: Of the surfaces, milliseconds.
        channels: What a surface shows, see `time_surfaces`.
        learning_rate: Share of the surface that a winner takes over, in [0, 1].
        rise: By how much a winner's threshold grows, >= 0.
        fall: By how much all thresholds fall at a miss, >= 0.
        initial_threshold: Of every feature at first, `None` draws each from [0, 1); minus infinity with
            `rise=fall=0` is plain competition without thresholds.
        inference: Whom an event belongs to after learning: `"nearest"`: the most similar feature; `"threshold"`: the
            most similar eligible one, and to nobody where there is none.
        regions: Rows and columns that `transform` divides the sensor into.
        epochs: Passes of `fit` over the recordings, each in a new order.
        random_state: Seed of features, thresholds and orders.

    Attributes:
        weights_: `[features, channels shown * size * size]`, rows of length one, never negative.
        thresholds_: `[features]`.
        miss_rates_: Share of missed events of each recording learned from, in the order of learning.
        wins_: How often each feature won while learning.

    Raises ConfigError for a setting out of range and DataError for arrays without the fields or with events outside
    the sensor.

    >>> from neuropil.data import moving_images_to_events
    >>> pictures = np.random.default_rng(0).random((30, 10, 10)) < 0.3
    >>> recordings = moving_images_to_events(255 * pictures.astype(np.uint8))
    >>> layer = FEASTLayer((16, 16, 2), features=8, size=5, rise=0.01, fall=0.02, random_state=0).fit(recordings)
    >>> layer.transform(recordings).shape, round(layer.expected_miss_rate, 3)
    ((30, 8), 0.059)
    >>> bool(abs(np.mean(layer.miss_rates_[10:]) - layer.expected_miss_rate) < 0.01)
    True
    """

    # learned; not there before
    weights_: Array
    thresholds_: Array
    miss_rates_: Array
    wins_: Array

    def __init__(
        self,
        sensor_size: Sequence[int] = (34, 34, 2),
        *,
        features: int = 36,
        size: int = 9,
        time_constant: float = 20.0,
        channels: Channels = "own",
        learning_rate: float = 1e-3,
        rise: float = 1e-3,
        fall: float = 3e-3,
        initial_threshold: float | None = None,
        inference: Inference = "nearest",
        regions: tuple[int, int] = (1, 1),
        epochs: int = 1,
        random_state: int | None = None,
    ) -> None:
        self.sensor_size = sensor_size
        self.features = features
        self.size = size
        self.time_constant = time_constant
        self.channels = channels
        self.learning_rate = learning_rate
        self.rise = rise
        self.fall = fall
        self.initial_threshold = initial_threshold
        self.inference = inference
        self.regions = regions
        self.epochs = epochs
        self.random_state = random_state

    @property
    def expected_miss_rate(self) -> float:
        """Share of misses at which wins and misses hold every threshold in balance; 1 where nothing falls."""
        return self.rise / (self.rise + self.features * self.fall) if self.rise or self.fall else 0.0

    def fit(self, X: Sequence[Events], y: Any = None) -> FEASTLayer:
        """Learn the features of recordings from new ones, forgetting an earlier fit."""
        self._check()
        rng = np.random.default_rng(self.random_state)
        self._begin(rng)
        recordings = _recordings(X)
        for _ in range(self.epochs):
            for index in rng.permutation(len(recordings)):
                self.learn(recordings[index])
        return self

    def partial_fit(self, X: Sequence[Events], y: Any = None) -> FEASTLayer:
        """Go on learning from recordings, in the order given."""
        self._check()
        if not hasattr(self, "weights_"):
            self._begin(np.random.default_rng(self.random_state))
        for recording in _recordings(X):
            self.learn(recording)
        return self

    def learn(self, events: Events, last: Array | None = None) -> FeatureEvents:
        """Learn from a stretch of events, each once; hand over `last` where a recording goes on."""
        if not hasattr(self, "weights_"):
            self._check()
            self._begin(np.random.default_rng(self.random_state))
        weight = np.ascontiguousarray(self.weights_.T)
        thresholds = self.thresholds_.copy()
        found = self._run(
            events, last, weight, thresholds, MatchRates(self.learning_rate, self.rise, self.fall)
        )
        self.weights_, self.thresholds_ = np.ascontiguousarray(weight.T), thresholds
        self.wins_ += np.bincount(found.winners + 1, minlength=self.features + 1)[1:]
        if len(found.winners):
            self.miss_rates_ = np.append(self.miss_rates_, (found.winners == MISSED).mean())
        return found

    def process(self, events: Events, last: Array | None = None) -> FeatureEvents:
        """The winning feature of each event, without learning."""
        check_is_fitted(self)
        if self.inference not in get_args(Inference):
            raise ConfigError(
                f"FEASTLayer.inference: got {self.inference!r}{nearest(str(self.inference), get_args(Inference))}"
            )
        nobody_refuses = np.full(self.features, -np.inf)
        thresholds = self.thresholds_.copy() if self.inference == "threshold" else nobody_refuses
        return self._run(events, last, np.ascontiguousarray(self.weights_.T), thresholds, MatchRates())

    def transform(self, X: Sequence[Events]) -> Array:
        """Wins of each feature in each recording, `[recordings, rows * columns * features]`."""
        check_is_fitted(self)
        width, height, _ = self.sensor_size
        rows, columns = self.regions
        check_whole("FEASTLayer", "regions", rows, 1, height)
        check_whole("FEASTLayer", "regions", columns, 1, width)
        recordings = _recordings(X)
        counts = np.zeros((len(recordings), rows * columns * self.features))
        for count, recording in zip(counts, recordings, strict=True):
            events = self.process(recording).events
            row = events["y"].astype(np.int64) * rows // height
            column = events["x"].astype(np.int64) * columns // width
            place = (row * columns + column) * self.features + events["p"]
            count += np.bincount(place, minlength=len(count))
        return counts

    def _run(
        self, events: Events, last: Array | None, weight: Array, thresholds: Array, rates: MatchRates
    ) -> FeatureEvents:
        field = self._field()
        columns, last = field.columns(events), field.start(last)
        winners = match_scan(
            columns, last, weight, thresholds, rates, radius=self.size // 2, tau=field.tau, own=field.own
        )
        taken = winners != MISSED
        found = np.empty(int(taken.sum()), FEATURE_EVENT)
        for name, column in zip("txyp", (columns.t, columns.x, columns.y, winners), strict=True):
            found[name] = column[taken]
        return FeatureEvents(found, winners, last)

    def _field(self) -> _Field:
        return _Field("FEASTLayer", self.sensor_size, self.size, self.time_constant, self.channels)

    def _begin(self, rng: np.random.Generator) -> None:
        """Positive features of length one in random directions."""
        weights = rng.random((self.features, self._field().shown * self.size**2))
        self.weights_ = weights / np.linalg.norm(weights, axis=1, keepdims=True)
        drawn = rng.random(self.features)
        first = self.initial_threshold
        self.thresholds_ = drawn if first is None else np.full(self.features, float(first))
        self.miss_rates_ = np.empty(0)
        self.wins_ = np.zeros(self.features, np.int64)

    def _check(self) -> None:
        for name in ("features", "epochs"):
            check_whole("FEASTLayer", name, getattr(self, name), 1)
        if not 0 <= self.learning_rate <= 1:
            raise ConfigError(
                f"FEASTLayer.learning_rate: got {self.learning_rate}, expected a share in [0, 1]"
            )
        for name in ("rise", "fall"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"FEASTLayer.{name}: got {getattr(self, name)}, expected a number >= 0")
        first = self.initial_threshold
        if first is not None and not -math.inf <= first < math.inf:
            raise ConfigError(f"FEASTLayer.initial_threshold: got {first}, expected a number, -inf or None")


def _recordings(X: Any) -> list[Events]:
    """A single event array is one recording."""
    found = [X] if isinstance(X, np.ndarray) and X.ndim == 1 and X.dtype.names else list(X)
    if not found:
        raise DataError("FEASTLayer: no recording; expected a list of event arrays")
    return found
