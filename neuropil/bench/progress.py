"""What a run tells while it runs, and how long it will still take."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["planned", "cached", "started", "finished", "failed", "progress", "warning"]

_log = logging.getLogger("neuropil.bench")


@dataclass(frozen=True)
class Event:
    """Something happened in a run.

    `planned` comes first, then for each trial `cached`, or `started` and `finished` or `failed`; `progress`
    comes about once a second while trials compute; `warning` says in `message` what was set right.
    """

    kind: Kind
    done: int  # trials that need no more work: finished, cached or failed
    total: int
    arm: str | None = None
    seed: int | None = None
    seconds: float | None = None  # what the trial of this event took
    left: float | None = None  # estimated seconds to the end; None before anything is known
    message: str = ""
    metrics: Mapping[str, float | None] = field(default_factory=dict)


Listener = Callable[[Event], None]


def warn(message: str, listener: Listener | None) -> None:
    """Tell a warning to the listener, or to the log when nobody listens."""
    if listener is None:
        _log.warning(message)
    else:
        listener(Event("warning", 0, 0, message=message))


class Progress:
    """Counts trials, by key, and estimates the time left from what trials of the same arm took before."""

    def __init__(self, arms: Mapping[str, str], jobs: int, costs: Mapping[str, float]) -> None:
        self._arms = dict(arms)  # of trials that still need work, by key
        self._since: dict[str, float] = {}
        self._total = len(arms)
        self._jobs = max(jobs, 1)
        self._costs = dict(costs)

    @property
    def done(self) -> int:
        """Trials that need no more work."""
        return self._total - len(self._arms)

    @property
    def total(self) -> int:
        """All trials."""
        return self._total

    def start(self, key: str) -> None:
        """A trial begins to compute."""
        self._since[key] = time.monotonic()

    def end(self, key: str, seconds: float | None = None) -> None:
        """A trial needs no more work; `seconds` when it was computed."""
        arm = self._arms.pop(key)
        if seconds is not None:
            self._costs[arm] = seconds

    def cost(self, arm: str) -> float | None:
        """Expected seconds of one trial of an arm; an arm never seen costs what the others do on average."""
        if not self._costs:
            return None
        return self._costs.get(arm, sum(self._costs.values()) / len(self._costs))

    def left(self) -> float | None:
        """Expected seconds until every trial is done; None before anything is known."""
        if not self._arms:
            return 0.0
        now, remaining = time.monotonic(), []
        for key, arm in self._arms.items():
            cost = self.cost(arm)
            if cost is None:
                return None
            remaining.append(max(cost - (now - self._since.get(key, now)), 0.0))
        return max(sum(remaining) / self._jobs, max(remaining))
