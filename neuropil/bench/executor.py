"""The contract between a run and whatever computes its trials: this machine's workers, or a cluster.

An executor takes jobs and yields what happens to them. Closing its iterator cancels what is not finished. Whatever
the executor, a trial is computed by a worker process of `neuropil.bench.workers` on one thread: same job, same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from neuropil.bench.result import TrialRecord
from neuropil.bench.study import Outcome, Trial

TICK = 1.0  # seconds between signs of life


@dataclass(frozen=True)
class Job:
    """A trial to compute. The function is sent by name: it lives at the top of an importable module."""

    key: str
    trial: Trial
    function: Callable[[Trial], Outcome]


class Reply(NamedTuple):
    """What became of a job: a record, or one line and a traceback."""

    record: TrialRecord | None
    message: str = ""
    trace: str = ""


class Step(NamedTuple):
    """Something happened to a job; a tick has no job. A job that moves to another node starts once more."""

    kind: Literal["started", "ended", "tick"]
    job: Job | None = None
    reply: Reply | None = None


class Executor(Protocol):
    """Computes jobs, each exactly once as far as the one who asks can tell."""

    @property
    def slots(self) -> int:
        """Trials that can compute side by side."""
        ...

    def compute_all(self, jobs: Sequence[Job]) -> Generator[Step, None, None]:
        """Compute jobs in the order given: `started` and `ended` for each, a `tick` when nothing happens.

        Closing the iterator, and any exception in it, ends what is at work at once.
        """
        ...
