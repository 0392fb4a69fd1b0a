"""How often earlier tasks come back: rehearsal that fades with the time since a task was met.

Gandhi, Shah, Marupudi, Varma: Catastrophic Interference is Mitigated in Naturalistic Power-Law Learning Environments.
2024. arXiv:2401.10393. The power law of need: Anderson, Schooler: Reflections of the Environment in Memory.
Psychological Science 1991.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from neuropil.errors import ConfigError, nearest

Kind = Literal["power", "exponential", "uniform"]


@dataclass(frozen=True)
class RehearsalSchedule:
    """Weights of earlier tasks by their lag, the number of tasks since: 1 for the last one.

    - `power`: `lag ** -rate`, as the past of a natural environment fades; rates of 0.5 to 1 are found there
    - `exponential`: `exp(-rate * lag)`; a rate of `log 2` halves with every task
    - `uniform`: all alike, the rate does not matter

    Give it to `Replay(schedule=..., batch_size=n)`: the total is n samples a batch whatever the kind, so schedules
    can be compared at one budget.

    Args:
        kind: how weights fall with lag.
        rate: how fast, at least 0.

    >>> RehearsalSchedule("power", rate=1.0)(3)
    (0.3333333333333333, 0.5, 1.0)
    """

    kind: Kind = "power"
    rate: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(
                f"RehearsalSchedule.kind: {self.kind!r} is unknown{nearest(str(self.kind), get_args(Kind))}"
            )
        if not 0 <= self.rate < math.inf:
            raise ConfigError(f"RehearsalSchedule.rate: got {self.rate}, expected at least 0")

    def __call__(self, tasks: int) -> tuple[float, ...]:
        """Weight of each of `tasks` earlier tasks, the oldest first; the largest is that of the last one."""
        return tuple(self.weight(lag) for lag in range(tasks, 0, -1))

    def weight(self, lag: int) -> float:
        """Weight of the task that was met `lag` tasks ago, before normalisation."""
        if lag < 1:
            raise ConfigError(f"RehearsalSchedule: a lag of {lag} tasks, expected at least 1")
        if self.kind == "power":
            return math.pow(lag, -self.rate)
        # from the last task on, so that weights of long streams do not all vanish
        return math.exp(-self.rate * (lag - 1)) if self.kind == "exponential" else 1.0
