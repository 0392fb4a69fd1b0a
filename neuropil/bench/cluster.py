"""Trials on a Ray cluster: a seat per processor, and in each a spawned worker such as this machine has.

A seat only hands jobs to its worker. A trial that kills its worker is therefore a failed trial, as it is locally; a
seat that is lost means a lost node, and its trial moves to another seat. An answer counts only if it comes from the
seat that has the job now, so that nothing is lost and nothing is doubled.
"""

from __future__ import annotations

import contextlib
import hashlib
import signal
import socket
import threading
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from neuropil.bench import catalogue
from neuropil.bench.executor import TICK, Job, Reply, Step
from neuropil.bench.provenance import version
from neuropil.bench.workers import Worker, environment, packed
from neuropil.errors import ConfigError, MissingExtraError

MAX_RETRIES = 3  # moves of one trial from a lost node to another


@dataclass(frozen=True)
class Cluster:
    """The executor of the Ray cluster that this process is connected to."""

    limit: int | None = None

    @property
    def slots(self) -> int:
        """Processors of the cluster's nodes, as far as they may be used."""
        there = int(_ray().cluster_resources().get("CPU", 0))
        return max(1, there if self.limit is None else min(there, self.limit))

    def compute_all(self, jobs: Sequence[Job]) -> Generator[Step, None, None]:
        """Compute jobs in the order given; those of a lost node go first once more."""
        crew = _Crew(list(reversed(jobs)))
        try:
            while crew.waiting or crew.jobs():
                crew.enlarge(self.slots)
                for job in crew.assign():
                    yield Step("started", job)
                steps = crew.advance()
                yield from steps or [Step("tick")]
        finally:
            crew.dismiss()


class Seat:
    """What lives on a node: hands jobs to a worker of its own and answers what became of them."""

    def __init__(self) -> None:
        self._worker = Worker()

    def identity(self) -> str:
        """Which code would compute here."""
        return identity()

    def compute(self, job: bytes) -> Reply:
        """What became of a packed job."""
        self._worker.send(job)
        reply = self._worker.take()
        if not self._worker.alive:
            self._worker = Worker()
        return reply


def identity() -> str:
    """Fingerprint of neuropil's files and the version of torch: what must agree between machines."""
    digest = hashlib.sha256(f"torch {version('torch')}\n".encode())
    for path in sorted(catalogue.PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(catalogue.PACKAGE).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@dataclass
class _Crew:
    """Seats, what each is at work on, and what waits for one."""

    waiting: list[Job]  # the next one last
    seats: dict[Any, tuple[Any, Job | None]] = field(
        default_factory=dict
    )  # promise: seat, job (None: identity)
    idle: list[Any] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)  # by key of the job, "" before a seat had one
    own: str = field(default_factory=identity)

    def jobs(self) -> list[Job]:
        """What is at work."""
        return [job for _, job in self.seats.values() if job is not None]

    def enlarge(self, slots: int) -> None:
        """Take as many seats as there are processors and trials to compute."""
        make = _ray().remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Seat)
        for _ in range(min(slots, len(self.waiting) + len(self.jobs())) - len(self.seats) - len(self.idle)):
            seat = make.remote()
            self.seats[seat.identity.remote()] = (seat, None)

    def assign(self) -> list[Job]:
        """Give waiting jobs to idle seats; the jobs given."""
        given = []
        while self.waiting and self.idle:
            job, seat = self.waiting.pop(), self.idle.pop()
            self.seats[seat.compute.remote(_sendable(job))] = (seat, job)
            given.append(job)
        return given

    def advance(self) -> list[Step]:
        """Wait a little for seats to answer; the jobs that ended."""
        ray = _ray()
        ready, _ = ray.wait(list(self.seats), timeout=TICK)
        steps = []
        for promise in ready:
            seat, job = self.seats.pop(promise)
            try:
                answer = ray.get(promise)
            except ray.exceptions.RayTaskError as error:  # neuropil is missing there, or is of another time
                raise ConfigError(
                    f"a node of the cluster cannot compute trials: {_last_line(error)}"
                ) from error
            except ray.exceptions.RayError as error:
                steps += self._move(seat, job, error)
                continue
            if job is None and answer != self.own:
                raise ConfigError(
                    "a node of the cluster has another neuropil or torch than this machine; install the same"
                )
            self.idle.append(seat)
            if job is not None:
                steps.append(Step("ended", job, answer))
        return steps

    def dismiss(self) -> None:
        """End every seat; its worker ends with it."""
        for seat in [*self.idle, *(seat for seat, _ in self.seats.values())]:
            with contextlib.suppress(Exception):  # the cluster may be gone
                _ray().kill(seat)

    def _move(self, seat: Any, job: Job | None, error: Exception) -> list[Step]:
        """A seat is lost: its job waits for another one, unless it was lost too often."""
        with contextlib.suppress(Exception):
            _ray().kill(seat)  # if it only cannot be reached, it must not go on
        key = job.key if job else ""
        self.lost[key] += 1
        if self.lost[key] <= MAX_RETRIES:
            if job is not None:
                self.waiting.append(job)
            return []
        if job is None:
            raise ConfigError(f"the cluster's nodes cannot hold a worker: {_last_line(error)}") from error
        return [Step("ended", job, Reply(None, f"lost with its node {self.lost[key]} times"))]


@contextlib.contextmanager
def connected(address: str | None, limit: int | None) -> Iterator[Cluster]:
    """The cluster at an address; without one, the cluster that runs on this machine, or a new one.

    A connection that the process has already is used and left as it is.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"jobs: expected at least 1 on a cluster, got {limit}")
    ray = _ray()
    if ray.is_initialized():
        yield Cluster(limit)
        return
    if address is not None:
        _reach(address)
    with _signals_kept(), environment(RAY_USAGE_STATS_ENABLED="0"):
        try:
            options = {} if address else {"include_dashboard": False}
            ray.init(address, log_to_driver=False, logging_level="ERROR", **options)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ConfigError(
                f"on {address or 'ray'}: the cluster does not answer ({_last_line(error)})"
            ) from error
    try:
        yield Cluster(limit)
    finally:
        ray.shutdown()


def _ray() -> Any:
    try:
        import ray  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("--on ray needs ray: pip install 'neuropil[ray]'") from error
    return ray


def _reach(address: str) -> None:
    """Tell at once that nobody listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"on {address}: nobody answers there ({error})") from error


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts its own handler of SIGTERM in place; what was there stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _sendable(job: Job) -> bytes:
    if getattr(job.function, "__module__", None) == "__main__":
        raise ConfigError(
            f"arm {job.trial.arm}: its trial is defined in a script; a cluster needs it in an importable module"
        )
    return packed(job)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
