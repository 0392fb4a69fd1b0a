"""What and when: the rules in numpy, what they converge to, the task's odds, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuropil.errors import ConfigError, LabelError, ShapeError
from neuropil.spiking import MEETBlock, MEETTask, WhatWhenReadout

rng = np.random.default_rng(0)
X = rng.uniform(0, 1, (12, 30, 8))
Y = np.column_stack([np.arange(12) % 2, np.where(np.arange(12) % 2, 20, 10)])
LINE = np.eye(40)[None]  # unit k is active at step k


def gated():
    return WhatWhenReadout(2, window=5), {}, (X, Y)


def ungated():
    return WhatWhenReadout(2, gate="open"), {}, (X, Y)


def meet(seed):
    return MEETTask([MEETBlock(0.7, (5, 9), 20), MEETBlock(0.2, (5, 9), 10)], time=12, seed=seed)


PARTS = [("estimator", gated), ("estimator", ungated), ("source", lambda: meet)]


@pytest.mark.parametrize("gate", ["window", "channel", "open"])
def test_learning_follows_the_two_rules(gate):
    readout = WhatWhenReadout(2, what_lr=0.2, when_lr=0.3, width=3.0, window=4, gate=gate).fit(X, Y)
    what, when = np.zeros((2, 8)), np.zeros((2, 8))
    for trial, (event, step) in zip(X, Y, strict=True):
        for t in range(30):
            for c in range(2):
                bump = np.exp(-((t - step) ** 2) / 18) if c == event else 0.0
                opened = {"window": c == event and abs(t - step) <= 4, "channel": c == event, "open": True}[
                    gate
                ]
                if opened:
                    when[c] += 0.3 * (bump - when[c] @ trial[t]) * trial[t] / (trial[t] @ trial[t])
        mean = trial.mean(0)
        for c in range(2):
            what[c] += 0.2 * ((c == event) - np.clip(what[c] @ mean, 0, 1)) * mean / (mean @ mean)
    np.testing.assert_allclose(readout.when_, when, rtol=1e-9)
    np.testing.assert_allclose(readout.what_, what, rtol=1e-9)
    expected = np.clip(X.mean(1) @ what.T, 0, 1)[:, None] * (X @ when.T)
    np.testing.assert_allclose(readout.predict(X), expected, rtol=1e-9)


def test_probabilities_are_running_frequencies():
    events = (np.random.default_rng(1).random(500) < 0.3).astype(int)
    readout = WhatWhenReadout(2, what_lr=0.02).fit(
        np.repeat(LINE, 500, 0), np.column_stack([events, 5 + 20 * events])
    )
    frequency = 0.0
    for event in events:
        frequency += 0.02 * (event - frequency)
    found = readout.probabilities(LINE)[0]
    np.testing.assert_allclose(found, [found[0], frequency], rtol=1e-9)
    assert found[0] + found[1] == pytest.approx(1, abs=0.001)


def test_a_gate_keeps_the_time_of_an_event_that_stays_away():
    first = np.column_stack([np.arange(60) % 2, np.where(np.arange(60) % 2, 30, 10)])
    only = np.column_stack([np.ones(60), np.full(60, 30)])
    kept = {}
    for gate in ("window", "open"):
        readout = WhatWhenReadout(2, when_lr=0.3, gate=gate, window=6, width=2.0).fit(
            np.repeat(LINE, 60, 0), first
        )
        before = readout.times(LINE)[0, 10, 0]
        kept[gate] = readout.partial_fit(np.repeat(LINE, 60, 0), only).times(LINE)[0, 10, 0] / before
        assert readout.probabilities(LINE)[0, 0] < 0.1  # but it is not expected any more
    assert kept["window"] == 1.0 and kept["open"] < 0.01


def test_times_become_bumps_within_the_window():
    y = np.column_stack([np.zeros(200), np.full(200, 20)])
    times = (
        WhatWhenReadout(1, width=3.0, window=8, when_lr=0.2)
        .fit(np.repeat(LINE, 200, 0), y)
        .times(LINE)[0, :, 0]
    )
    steps = np.arange(40)
    inside = abs(steps - 20) <= 8
    np.testing.assert_allclose(times[inside], np.exp(-((steps[inside] - 20) ** 2) / 18), atol=1e-9)
    assert not times[~inside].any()


def test_the_task_has_its_odds_and_times():
    task = MEETTask([MEETBlock(0.8, (5, 9), 2000), MEETBlock(0.1, (3, 7), 2000)], time=12, cue=2, seed=3)
    event, step = task.outcomes.T
    assert float((event[:2000] == 0).double().mean()) == pytest.approx(0.8, abs=0.03)
    assert float((event[2000:] == 0).double().mean()) == pytest.approx(0.1, abs=0.03)
    assert torch.equal(
        step,
        torch.where(torch.arange(4000) < 2000, torch.where(event == 0, 5, 9), torch.where(event == 0, 3, 7)),
    )
    assert task[0].cue[:, 0].tolist() == [1.0] * 2 + [0.0] * 10
    with pytest.raises(IndexError):
        task[4000]


def test_what_does_not_fit_is_refused_in_one_line():
    calls = [
        (ConfigError, "what_lr", lambda: WhatWhenReadout(what_lr=0).fit(X, Y)),
        (ConfigError, "width", lambda: WhatWhenReadout(width=0).fit(X, Y)),
        (ConfigError, "did you mean 'window'", lambda: WhatWhenReadout(gate="windo").fit(X, Y)),
        (ShapeError, "event and step", lambda: WhatWhenReadout().fit(X, Y[:, :1])),
        (LabelError, "0 ... 1", lambda: WhatWhenReadout().fit(X, Y + 1)),
        (ShapeError, "8 as in fit", lambda: WhatWhenReadout().fit(X, Y).predict(X[..., :3])),
        (ConfigError, "probability", lambda: MEETTask([MEETBlock(1.5, (1, 2))], time=9)),
        (ConfigError, "steps below 9", lambda: MEETTask([MEETBlock(0.5, (1, 9))], time=9)),
        (ConfigError, "no block", lambda: MEETTask([], time=9)),
    ]
    for kind, match, call in calls:
        with pytest.raises(kind, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)
