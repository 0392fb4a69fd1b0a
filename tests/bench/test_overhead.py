"""The ratio of two calls' times, without timing anything real."""

from __future__ import annotations

import pytest

from neuropil.bench import overhead as module
from neuropil.bench.overhead import overhead


class Clock:
    """A clock that only the calls under test move."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_it_is_the_ratio_of_what_the_calls_take(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)

    def take(seconds: float) -> None:
        clock.now += seconds

    assert overhead(lambda: take(2.0), lambda: take(3.0)) == pytest.approx(1.5)


def test_a_hiccup_in_one_call_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = Clock(), []
    monkeypatch.setattr(module, "time", clock)

    def hiccup() -> None:
        calls.append(1)
        clock.now += 100.0 if len(calls) % 5 == 0 else 3.0

    def plain() -> None:
        clock.now += 2.0

    assert overhead(plain, hiccup) == pytest.approx(1.5)
