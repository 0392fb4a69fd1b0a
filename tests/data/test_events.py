"""Event arrays to frames and back, data sets as Tonic makes them, and events of videos whose light is known."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuropil import data
from neuropil.errors import ConfigError, DataError, EmptyTaskError, ShapeError
from neuropil.nn import LIF, RateReadout, Sequential
from neuropil.training import Backprop

# Field types as Tonic's readers give them: N-MNIST and DVS Gesture, and the hearing sensors (SHD), which have no y.
NMNIST = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])
SHD = np.dtype([("t", int), ("x", int), ("p", int)])


class LikeTonic:
    """A data set with the interface of Tonic's: a sensor size on the class, items of (events, label)."""

    def __init__(self, dtype, sensor_size, count=20, seed=0):
        rng = np.random.default_rng(seed)
        self.sensor_size, self.items = sensor_size, []
        for index in range(count):
            events = np.zeros(60, dtype)
            events["t"] = np.sort(rng.integers(5000, 25_000, 60))
            label = index % 2  # the place says what it is
            half = sensor_size[0] // 2
            events["x"] = rng.integers(0, half, 60) + label * half
            for name, size in (("y", sensor_size[1]), ("p", sensor_size[2])):
                if name in dtype.names:
                    events[name] = rng.integers(0, size, 60)
            self.items.append((events, label))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def samples(seed: int = 0) -> data.EventSamples:
    return data.EventSamples(LikeTonic(NMNIST, (6, 4, 2), seed=seed), 5)


PARTS = [("source", partial(lambda factory: factory, samples))]


def test_frames_count_each_event_where_and_when_it_was():
    dataset = LikeTonic(NMNIST, (6, 4, 2))
    events, _ = dataset[3]
    frames = data.events_to_frames(events, (6, 4, 2), step=1000)
    expected = np.zeros(frames.shape)
    for event in events:
        expected[(event["t"] - events["t"][0]) // 1000, event["p"], event["y"], event["x"]] += 1
    np.testing.assert_array_equal(frames, expected)
    parts = data.events_to_frames(events, (6, 4, 2), time_steps=7)
    assert parts.shape == (7, 2, 4, 6) and parts.sum() == 60
    np.testing.assert_array_equal(parts.sum(0), frames.sum(0))


def test_a_fixed_length_cuts_or_fills():
    events = data.make_events([100, 150, 500], [0, 1, 1])
    frames = data.events_to_frames(events, (2, 1, 1), time_steps=3, step=100)
    assert frames[:, 0].tolist() == [[1, 1], [0, 0], [0, 0]]
    assert data.events_to_frames(data.make_events([], []), (2, 1, 1), time_steps=3).sum() == 0


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_frames_go_to_events_and_back(seed):
    frames = torch.randint(0, 3, (4, 2, 3, 2), generator=torch.Generator().manual_seed(seed)).float()
    frames[0, 0, 0, 0] = 1  # time begins at the first event
    frames[-1, 0, 0, 0] = 1
    events = data.frames_to_events(frames, step=50)
    assert torch.equal(data.events_to_frames(events, (2, 3, 2), step=50), frames)


def test_polarities_stored_as_minus_one_are_darker():
    events = data.make_events([0, 1], [0, 0], 0, [-1, 1])
    assert data.events_to_frames(events, (1, 1, 2), time_steps=1).flatten().tolist() == [1, 1]


@pytest.mark.parametrize(
    ("dtype", "size", "shape"), [(NMNIST, (6, 4, 2), (2, 4, 6)), (SHD, (70, 1, 1), (1, 70))]
)
def test_a_tonic_data_set_is_a_task_that_can_be_learned(dtype, size, shape):
    task = data.event_task(LikeTonic(dtype, size, 40), LikeTonic(dtype, size, 10, seed=1), 8, binary=True)
    assert [len(part) for part in (task.train, task.validation, task.test)] == [36, 4, 10]
    features = int(np.prod(shape))
    torch.manual_seed(0)
    net = Sequential(torch.nn.Flatten(), torch.nn.Linear(features, 2), LIF(decay=0.9), RateReadout())
    learner = Backprop(net, torch.optim.Adam(net.parameters(), lr=0.05))
    for epoch in range(4):
        for batch in data.batches(task.train, 9, epoch=epoch, n_classes=2):
            assert batch.inputs.shape[1:] == (8, *shape)
            learner.update(batch._replace(inputs=batch.inputs.transpose(0, 1)))
    (test,) = data.batches(task.test, 10, shuffle=False)
    assert (learner.predict(test.inputs.transpose(0, 1)).argmax(-1) == test.targets).all()


def test_tonic_itself():
    tonic = pytest.importorskip("tonic")
    events, _ = LikeTonic(NMNIST, (6, 4, 2))[0]
    to_frames = tonic.transforms.ToFrame(sensor_size=(6, 4, 2), time_window=1000, include_incomplete=True)
    np.testing.assert_array_equal(data.events_to_frames(events, (6, 4, 2), step=1000), to_frames(events))
    fixed = tonic.transforms.ToFrame(sensor_size=(6, 4, 2), n_time_bins=5)(events)
    ours = data.events_to_frames(events, (6, 4, 2), time_steps=5)
    assert fixed.shape == ours.shape and ours.sum() == 60 > fixed.sum()  # it loses the last ones


def test_a_ramp_of_log_light_fires_at_even_times():
    rate, steps, frames = 2.0, 12, 25.0  # e-folds per second
    seconds = torch.arange(steps, dtype=torch.double) / frames
    video = 0.01 * torch.exp(rate * seconds).view(-1, 1, 1).expand(steps, 2, 3)
    events = data.video_to_events(video, frames, threshold=0.1, offset=1e-12)
    crossings = np.arange(1, int(rate * float(seconds[-1]) / 0.1 + 1e-6) + 1)
    assert len(events) == 6 * len(crossings) and (events["p"] == 1).all()
    one = events[(events["x"] == 2) & (events["y"] == 1)]
    np.testing.assert_allclose(one["t"], crossings * 0.1 / rate * 1e6, atol=1)
    down = data.video_to_events(video.flip(0), frames, threshold=0.1, offset=1e-12)
    assert (down["p"] == 0).all() and len(down) == len(events)


def test_events_of_a_video_tell_its_light_to_within_the_threshold():
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(20, 5, 4, generator=generator, dtype=torch.double)
    events = data.video_to_events(video, 30.0, threshold=0.15, offset=0.05)
    sign = np.where(events["p"] > 0, 1, -1)
    moved = np.zeros((5, 4))
    np.add.at(moved, (events["y"], events["x"]), 0.15 * sign)
    change = torch.log((video[-1] + 0.05) / (video[0] + 0.05)).numpy()
    assert np.abs(change - moved).max() <= 0.15 + 1e-6
    assert (np.diff(events["t"]) >= 0).all() and events["t"].max() <= 19 / 30 * 1e6 + 1


def test_refractory_pixels_stay_silent_and_thresholds_and_noise_follow_the_seed():
    video = torch.rand(30, 4, 4, generator=torch.Generator().manual_seed(1))
    events = data.video_to_events(video, 30.0, threshold=0.1, refractory=20_000)
    for x in range(4):
        for y in range(4):
            own = events["t"][(events["x"] == x) & (events["y"] == y)]
            assert len(own) > 3 and np.diff(own).min() >= 20_000 - 1  # whole microseconds

    def seeded(seed: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed)
        return data.video_to_events(video, 30.0, threshold_spread=0.1, noise=5.0, generator=generator)

    assert np.array_equal(seeded(0), seeded(0)) and not np.array_equal(seeded(0)[:50], seeded(1)[:50])
    still = data.video_to_events(
        torch.ones(61, 40, 40), 30.0, noise=5.0, generator=torch.Generator().manual_seed(0)
    )
    expected = 5.0 * 2 * 1600
    assert abs(len(still) - expected) < 5 * expected**0.5
    assert abs(still["p"].mean() - 0.5) < 5 * 0.5 / expected**0.5


@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (lambda: data.events_to_frames(np.zeros(3), (1, 1, 1), step=1), DataError, "fields none"),
        (
            lambda: data.events_to_frames(data.make_events([0], [5]), (3, 1, 1), step=1),
            DataError,
            r"x lies in \[5, 5\]",
        ),
        (
            lambda: data.events_to_frames(data.make_events([0], [0]), (3, 1), step=1),
            ConfigError,
            "polarities",
        ),
        (
            lambda: data.events_to_frames(data.make_events([0], [0]), (3, 1, 1)),
            ConfigError,
            "give time_steps",
        ),
        (
            lambda: data.events_to_frames(data.make_events([0], [0]), (3, 1, 1), step=0),
            ConfigError,
            "a time > 0",
        ),
        (lambda: data.make_events([0, 1], [1, 2, 3]), DataError, "one number per event"),
        (lambda: data.frames_to_events(torch.full((1, 1, 1), 0.5)), DataError, "whole counts"),
        (lambda: data.EventSamples([], 3), ConfigError, "no sensor_size"),
        (lambda: data.EventSamples([1], 3, sensor_size=(1, 1, 1))[0], DataError, "item 0 is no pair"),
        (
            lambda: data.event_task([1], [1], 3, sensor_size=(1, 1, 1), validation=1),
            EmptyTaskError,
            "none to train",
        ),
        (lambda: data.video_to_events(torch.ones(3, 2), 1), ShapeError, "time, height, width"),
        (lambda: data.video_to_events(-torch.ones(3, 2, 2), 1), DataError, ">= 0"),
        (lambda: data.video_to_events(torch.ones(3, 2, 2), 0), ConfigError, "frames_per_second"),
        (lambda: data.video_to_events(torch.ones(3, 2, 2), 1, noise=-1), ConfigError, "noise"),
    ],
)
def test_bad_input_gets_one_line(call, kind, match):
    with pytest.raises(kind, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
