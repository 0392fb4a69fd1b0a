"""Persistent workers: spawned processes that compute one trial at a time on one thread.

Spawned, because forking after a thread pool or a compiled kernel has run can hang. A worker ends when its parent
does, however that ends, and never sees Ctrl-C: the parent decides.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import threading
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler

from neuropil.bench.executor import TICK, Job, Reply, Step
from neuropil.bench.outcome import record_of
from neuropil.errors import ConfigError, NeuropilError

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def worker_count(jobs: int | None) -> int:
    """Workers to use: as many as asked for, or as the cores that this process may use."""
    if jobs is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if jobs < 0:
        raise ConfigError(f"jobs: expected an integer of at least 0, got {jobs}")
    return jobs


def compute(job: Job) -> Reply:
    """Compute a trial here and now; whatever it raises becomes a reply."""
    try:
        _prepare(job.trial.seed)
        began = time.perf_counter()
        with _linear_algebra_on_one_thread():
            outcome = job.function(job.trial)
        return Reply(record_of(job.trial, outcome, job.key, time.perf_counter() - began))
    except Exception as error:
        return Reply(None, _one_line(error), traceback.format_exc())


@dataclass(frozen=True)
class Workers:
    """The executor of this machine: spawned workers; with no slots, trials are computed in this process."""

    slots: int

    def compute_all(self, jobs: Sequence[Job]) -> Generator[Step, None, None]:
        """Compute jobs in the order given, side by side."""
        return _side_by_side(jobs, min(self.slots, len(jobs))) if self.slots else _here(jobs)


def _here(jobs: Sequence[Job]) -> Generator[Step, None, None]:
    for job in jobs:
        yield Step("started", job)
        with _restored():
            reply = compute(job)
        yield Step("ended", job, reply)


def _side_by_side(jobs: Sequence[Job], slots: int) -> Generator[Step, None, None]:
    pool: list[Worker] = []
    waiting = list(reversed(jobs))
    try:
        while waiting or any(worker.job for worker in pool):
            while waiting and len(pool) < slots:
                pool.append(Worker())
            for worker in pool:
                if worker.job is None and waiting:
                    worker.give(waiting.pop())
                    yield Step("started", worker.job)
            busy = {worker.connection: worker for worker in pool if worker.job}
            ready = wait(list(busy), timeout=TICK)
            for connection in ready:
                worker = busy[connection]  # type: ignore[index]
                step = Step("ended", worker.job, worker.take())
                if not worker.alive:
                    pool.remove(worker)
                yield step
            if not ready:
                yield Step("tick")
    finally:
        for worker in pool:
            worker.process.terminate()
        for worker in pool:
            worker.end()


def packed(job: Job) -> bytes:
    """A job as it is sent. Raises ConfigError for one that cannot be."""
    try:
        return bytes(ForkingPickler.dumps(job))
    except Exception as error:
        raise ConfigError(
            f"arm {job.trial.arm}: the trial cannot be sent to a worker ({_one_line(error)}); define its "
            "function and settings at the top of a module"
        ) from error


class Worker:
    """A spawned process and the job that it has."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.job: Job | None = None
        self.alive = True
        _start_shielded(self.process)
        theirs.close()

    def give(self, job: Job) -> None:
        """Send a job."""
        self.job = job
        self.send(packed(job))

    def send(self, job: bytes) -> None:
        """Send a job that was packed elsewhere."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send_bytes(job)  # to one that died: reading from it will tell

    def take(self) -> Reply:
        """The reply to the job; a worker that died leaves one too."""
        self.job = None
        try:
            reply: Reply = self.connection.recv()
        except (EOFError, OSError):
            self.alive = False
            self.end()
            return Reply(None, f"the worker ended with {_ending(self.process.exitcode)}")
        return reply

    def end(self) -> None:
        """End the process, kindly for a second."""
        self.connection.close()
        self.process.join(1.0)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set variables of the environment for processes that are started meanwhile."""
    kept = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_shielded(process: SpawnProcess) -> None:
    """Start a process that never sees Ctrl-C and whose libraries load for one thread: it inherits both."""
    posix = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if posix else set()
    try:
        with environment(**dict.fromkeys(_THREADS, "1")):
            process.start()
    finally:
        if posix:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection) -> None:
    """Life of a worker: compute what comes until the parent is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(2, 1)  # a trial that prints must not spoil what the parent prints
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        while True:
            connection.send(_answer(connection))


def _answer(connection: Connection) -> Reply:
    """Reply to the next job; one that cannot be read here, such as for a failing import, is answered too."""
    try:
        job = connection.recv()
    except (EOFError, OSError):
        raise
    except Exception as error:
        return Reply(None, _one_line(error), traceback.format_exc())
    return compute(job)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _prepare(seed: int) -> None:
    """Make a trial's bits depend on its seed alone, not on the trials that this process computed before."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory with NaN is a debugging aid that costs a pass over every output.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - for libraries that still draw from it
    torch.manual_seed(seed)


def _linear_algebra_on_one_thread() -> contextlib.AbstractContextManager[object]:
    """Numpy's and scikit-learn's products round by their number of threads, and take it from the environment."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    limits: contextlib.AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Leave the process's random states and torch's settings as they were."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002
    dtype, grad, threads = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.random.set_rng_state(states[2])
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (
        text if isinstance(error, NeuropilError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
    )


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"{name} (out of memory?)" if name == "SIGKILL" else name
    return f"exit code {code}"
