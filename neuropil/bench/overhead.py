"""What a mechanism adds to a training step, measured beside the plain step in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median


def overhead(plain: Callable[[], object], other: Callable[[], object], *, rounds: int = 40) -> float:
    """Time of `other` over the time of `plain`, from calls that take turns.

    Turns keep a machine's changing load out of the ratio; the median of the pairs' ratios keeps out what hits only
    one of them. Put it into `Outcome.cost`, for the report prints costs beside results: it varies with the machine.

    >>> overhead(lambda: sum(range(1000)), lambda: sum(range(4000))) > 1
    True
    """
    for _ in range(3):  # what is made once: caches, buffers, compiled kernels
        plain()
        other()
    return median(_seconds(other) / _seconds(plain) for _ in range(rounds))


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
