"""What a run tells while it runs, and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["planned", "cached", "started", "finished", "failed", "progress", "warning"]


@dataclass(frozen=True)
class Event:
    """Something happened in a run.

    `planned` comes first, then for each trial `cached`, or `started` and `finished` or `failed`; `progress` comes
    about once a second while trials compute; `warning` says in `message` what was set right.
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


class Progress:
    """Counts trials and estimates the time left from what trials of the same arm took before."""

    def __init__(
        self,
        cells: Iterable[tuple[str, int]],
        jobs: int,
        costs: Mapping[str, float],
        listener: Listener | None,
    ) -> None:
        self._open = dict.fromkeys(cells, 0.0)  # when each was started, 0 while it waits
        self._total = len(self._open)
        self._jobs = max(jobs, 1)
        self._costs = dict(costs)
        self._listener = listener

    @property
    def done(self) -> int:
        """Trials that need no more work."""
        return self._total - len(self._open)

    @property
    def total(self) -> int:
        """Trials of the run."""
        return self._total

    def cost(self, arm: str) -> float | None:
        """Expected seconds of one trial of an arm; an arm never seen costs what the others do on average."""
        if self._costs:
            return self._costs.get(arm, sum(self._costs.values()) / len(self._costs))
        return None

    def left(self) -> float | None:
        """Expected seconds until every trial is done."""
        if not self._open:
            return 0.0
        now, remaining = time.monotonic(), []
        for (arm, _), since in self._open.items():
            cost = self.cost(arm)
            if cost is None:
                return None
            remaining.append(max(cost - (now - since), 0.0) if since else cost)
        return max(sum(remaining) / min(self._jobs, len(remaining)), max(remaining))

    def tell(self, kind: Kind, arm: str | None = None, seed: int | None = None, **what: object) -> None:
        """Note what happened and pass it on."""
        if arm is not None and seed is not None:
            if kind == "started":
                self._open[arm, seed] = time.monotonic()
            elif kind in ("finished", "cached", "failed"):
                self._open.pop((arm, seed), None)
            seconds = what.get("seconds")
            if kind == "finished" and isinstance(seconds, float):
                self._costs[arm] = seconds
        if self._listener is not None:
            self._listener(Event(kind, self.done, self._total, arm, seed, left=self.left(), **what))  # type: ignore[arg-type]
