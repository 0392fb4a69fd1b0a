"""Contenders measured in turns, A B C A B C, each in its own environment, and ratios of their times."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import environments
from benchmarks.worker import BLOCK, arrays, timed
from benchmarks.workload import OURS, Arrays, Contender, Row, Workload

HERE = Path(__file__).parent
ROUNDS = 21
SECONDS = 60.0  # after which no further round begins
THREADS = 2
_REST = 0.004  # seconds between contenders, in which threads that spin at the end of their work go to sleep
_FAR = (
    3.0  # how much slower than the fastest of its row a contender must be to be measured in a few rounds only
)
_FEW = 3  # rounds for those

Say = Callable[[str], None]


class PeerError(Exception):
    """A peer could not be set up or failed; the message is its own."""


@dataclass
class Measurement:
    """Seconds per step by contender and round (None where it sat out), and what the check found."""

    workload: Workload
    seconds: dict[str, list[float | None]]
    agreement: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Median seconds of a contender."""
        return statistics.median(s for s in self.seconds[name] if s is not None)

    def ratios(self, name: str, ours: str) -> list[float]:
        """Time of `name` over that of `ours`, round by round."""
        pairs = zip(self.seconds[name], self.seconds[ours], strict=True)
        return [theirs / mine for theirs, mine in pairs if theirs is not None and mine is not None]

    def row(self, row: Row) -> dict[str, Any] | None:
        """The JSON object of a row, None if nobody of `against` could run."""
        rivals = [name for name in row.against if name in self.seconds]
        if not rivals or row.ours not in self.seconds:
            return None
        fastest = min(rivals, key=self.median)
        ratios = self.ratios(fastest, row.ours)  # round by round, for the spread
        limit = self.workload.limit
        return {
            "workload": row.name,
            "against": fastest,
            "ratio": self.median(fastest) / self.median(row.ours),
            "target": row.target,
            "goal": row.goal,
            "limit_ratio": self.median(limit) / self.median(row.ours) if limit else None,
            "ours_ms": 1e3 * self.median(row.ours),
            "peers": {name: 1e3 * self.median(name) for name in self.seconds if name != row.ours},
            "spread": [min(ratios), max(ratios)],
        }


class Worker:
    """A process of another environment that holds its contenders ready."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [str(python), str(HERE / "worker.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": "the process ended"}
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True)
class _Ready:
    """A contender that has been set up, wherever it runs."""

    time: Callable[[], float]
    outputs: Callable[[], Arrays]


def measure(
    workload: Workload, *, tiny: bool = False, rounds: int = ROUNDS, seconds: float = SECONDS,
    block: float = BLOCK, prepare: bool = True, say: Say = lambda text: None,
) -> Measurement:  # fmt: skip
    """Set every contender up, check that they agree, and time them in turns.

    A contender of an environment that is absent is left out, unless `prepare`, which makes the environment.
    Each timing is of calls in a row that take `block` seconds together.
    """
    with ExitStack() as stack, _threads():
        ready, left_out = _set_up(workload, workload.inputs(tiny), block, prepare, say, stack)
        outputs = {name: contender.outputs() for name, contender in ready.items()}
        agreement = list(workload.check(outputs)) if workload.check else []
        del outputs
        for contender in ready.values():  # warm up
            contender.time()
        seconds_by_name = _rounds(workload, ready, rounds, seconds, say)
    return Measurement(workload, seconds_by_name, agreement, left_out)


def _rounds(
    workload: Workload, ready: Mapping[str, _Ready], rounds: int, seconds: float, say: Say
) -> dict[str, list[float | None]]:
    taken: dict[str, list[float | None]] = {name: [] for name in ready}
    began = time.perf_counter()
    for number in range(rounds):
        if number >= 3 and time.perf_counter() - began > seconds:
            say(f"stopped after {number} rounds")
            break
        resting = _far_behind(workload, taken) if number >= _FEW else set()
        order = list(ready)
        order = (
            order[number % len(order) :] + order[: number % len(order)]
        )  # nobody always follows the same one
        for name in order:
            time.sleep(_REST)
            taken[name].append(None if name in resting else ready[name].time())
    return taken


def _far_behind(workload: Workload, taken: Mapping[str, list[float | None]]) -> set[str]:
    """Contenders that are the fastest of no row by far."""
    median = {name: statistics.median(s for s in times if s is not None) for name, times in taken.items()}
    needed = {workload.limit, OURS, *(row.ours for row in workload.rows)}
    for row in workload.rows:
        rivals = {name: median[name] for name in row.against if name in median}
        best = min(rivals.values(), default=0.0)
        needed |= {name for name, value in rivals.items() if value <= _FAR * best}
    return set(taken) - needed


def _set_up(
    workload: Workload, inputs: Arrays, block: float, prepare: bool, say: Say, stack: ExitStack
) -> tuple[dict[str, _Ready], dict[str, str]]:
    ready: dict[str, _Ready] = {}
    left_out: dict[str, str] = {}
    workers: dict[str, Worker] = {}
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    np.savez(folder / "inputs.npz", **inputs)  # type: ignore[arg-type]
    for contender in workload.contenders:
        try:
            if contender.environment == "here":
                ready[contender.name] = _here(workload, contender, inputs, block)
                continue
            if contender.environment not in workers:
                python = environments.python(contender.environment, prepare=prepare, say=say)
                worker = workers[contender.environment] = Worker(python)
                stack.callback(worker.close)
            worker = workers[contender.environment]
            ready[contender.name] = _elsewhere(workload, contender, worker, folder, block)
        except (PeerError, environments.AbsentError) as error:
            left_out[contender.name] = str(error)
            say(f"{contender.name} is left out: {error}")
    return ready, left_out


def _here(workload: Workload, contender: Contender, inputs: Arrays, block: float) -> _Ready:
    assert callable(contender.make)
    run = contender.make(inputs)
    return _Ready(lambda: timed(run, block) / workload.steps, lambda: arrays(run()))


def _elsewhere(
    workload: Workload, contender: Contender, worker: Worker, folder: Path, block: float
) -> _Ready:
    assert isinstance(contender.make, str)
    script, _, function = contender.make.partition(":")
    name = contender.name
    worker.ask(
        do="make", name=name, script=str(HERE / "peers" / script), function=function,
        inputs=str(folder / "inputs.npz"),
    )  # fmt: skip
    path = folder / "outputs.npz"

    def outputs() -> Arrays:
        worker.ask(do="outputs", name=name, path=str(path))
        with np.load(path) as data:
            return dict(data)

    return _Ready(lambda: worker.ask(do="run", name=name, block=block)["seconds"] / workload.steps, outputs)


@contextmanager
def _threads() -> Iterator[None]:
    """The same number of threads for everybody, here and in the processes started meanwhile."""
    import torch

    before, variables = (
        torch.get_num_threads(),
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    )
    saved = {name: os.environ.get(name) for name in variables}
    os.environ.update(dict.fromkeys(variables, str(THREADS)))
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def progress(text: str) -> None:
    """Say what is going on, beside the results."""
    sys.stderr.write(text + "\n")
