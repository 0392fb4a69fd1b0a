"""A process that has imported everything and is forked for each life, so that hundreds of lives can be killed.

No kernel has run in it when it forks, and it has no threads. `python -m tests.guarantees.nursery` reads a line of
JSON for each life: a function of this module and its arguments; a life's answer is left in a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # seconds; ends a test that hangs, measures nothing


class Nursery:
    """Starts lives, kills them, waits for them."""

    def __init__(self, place: Path) -> None:
        self.place, self.number = place, 0
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.guarantees.nursery"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=place,
        )  # fmt: skip

    def start(self, life: str, *args: Any) -> Life:
        self.number += 1
        answer = self.place / f"answer-{self.number}"
        return Life(self, self._ask(life, [*map(_plain, args)], str(answer)), answer)

    def _ask(self, life: str, args: list[Any], answer: str) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([life, args, answer]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate(timeout=PATIENCE)


class Life:
    """A forked process."""

    def __init__(self, nursery: Nursery, pid: int, answer: Path) -> None:
        self.nursery, self.pid, self.answer = nursery, pid, answer

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> int:
        """Wait for the end; the exit code, negative for a signal."""
        return self.nursery._ask("", [], str(self.pid))

    def result(self) -> Any:
        """Wait for the end of a life that ends well; what it left."""
        code = self.end()
        said = self.answer.read_text() if self.answer.exists() else ""
        assert code == 0, f"exit code {code}: {said}"
        return json.loads(said)

    def killed_after(self, seconds: float) -> bool:
        """Kill it after a while; whether it was still alive then."""
        time.sleep(seconds)
        self.send(signal.SIGKILL)
        return self.end() == -signal.SIGKILL


@contextlib.contextmanager
def nursery_in(place: Path) -> Iterator[Nursery]:
    nursery = Nursery(place)
    try:
        yield nursery
    finally:
        nursery.close()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def train(name: str, checkpoint: str | None, die_at: int | None = None, torn: bool = False) -> Any:
    """Live a family's life; how it ended, and the kinds of steps that it took on the disk."""
    if checkpoint is None:
        return {"end": lives.live(name, None)}
    Path(checkpoint).mkdir(exist_ok=True)
    with Disk(Path(checkpoint), die_at, torn) as disk:
        end = lives.live(name, Path(checkpoint))
    return {"end": end, "kinds": [step.kind for step in disk.steps]}


def bench(directory: str, cache: str, die_at: int | None = None, torn: bool = False) -> Any:
    """Run the tiny study, or go on with its run; what it found, and the kinds of steps that it took on the disk."""
    os.environ["NEUROPIL_CACHE"] = cache
    place = Path(directory)
    place.mkdir(exist_ok=True)
    with Disk(place, die_at, torn) as disk:
        if (place / "run.json").exists():
            result = runner.resume(place, study=tiny.study, jobs=0)
        else:
            result = runner.run(tiny.study, jobs=0, out=place)
    found = [(t.arm, t.seed, t.metrics, t.curves, t.arrays) for t in result.trials]
    judged = [(j.verdict, j.value, j.ci_low, j.ci_high) for j in result.judgements]
    left = sorted(path.name for path in place.rglob("*") if path.suffix != ".json" and path.is_file())
    return {"end": repr((found, judged)), "kinds": [step.kind for step in disk.steps], "left": left}


def hold(directory: str, log: str, loops: int) -> Any:
    """Take the lock of a run directory again and again; in it, nobody else may be."""
    from neuropil.bench.store import held
    from neuropil.errors import CheckpointError

    won = lost = 0
    while won < loops:
        try:
            with held(Path(directory)):
                handle = os.open(log, os.O_CREAT | os.O_EXCL)  # fails when another process is in here too
                os.close(handle)
                time.sleep(random.random() / 1000)
                os.unlink(log)
                won += 1
        except CheckpointError:
            lost += 1
            time.sleep(random.random() / 500)
    return {"won": won, "lost": lost}


def hold_and_wait(directory: str, ready: str) -> Any:
    """Take the lock and keep it until the end comes."""
    from neuropil.bench.store import held

    with held(Path(directory)):
        Path(ready).touch()
        time.sleep(PATIENCE)


def save_often(directory: str, number: int, loops: int) -> Any:
    """Save checkpoints beside another process that does so too."""
    from neuropil.errors import CheckpointError
    from neuropil.training import save_checkpoint

    saved = told = 0
    for loop in range(loops):
        try:
            save_checkpoint(directory, loop, {"who": number, "x": torch.full((100,), float(number))})
            saved += 1
        except CheckpointError:
            told += 1
    return {"saved": saved, "told": told}


def train_on(name: str, checkpoint: str) -> Any:
    """Learn until a signal comes."""
    life = lives.trainer(name, Path(checkpoint), epochs=10**6, checkpoint_every=None)
    life.fit(lives.stream())


def memory(name: str, total: int) -> Any:
    """Kilobytes of memory and number of objects, eight times in the course of many steps."""
    import gc

    from neuropil.data.batching import batches

    life = lives.trainer(name)
    life.fit(lives.stream())
    life.model.train()
    seen = []
    data = list(batches(lives.task(0).train, lives.BATCH))
    for step in range(1, total + 1):
        life.learner.update(data[step % len(data)])
        if step % max(1, total // 8) == 0:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            seen.append((step, pages * os.sysconf("SC_PAGE_SIZE") // 1024, len(gc.get_objects())))
    return seen


def train_on_full_disk(name: str, checkpoint: str) -> Any:
    """Learn with a limit on the size of files that comes in mid-life; what was said."""
    import resource

    from neuropil.errors import CheckpointError

    life = lives.trainer(name, Path(checkpoint))
    update = life.learner.update

    def and_the_disk_is_full(batch: Any) -> Any:
        if life.step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        return update(batch)

    life.learner.update = and_the_disk_is_full
    try:
        life.fit(lives.stream())
    except CheckpointError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def bench_on_full_disk(directory: str, cache: str) -> Any:
    """Run the tiny study with a limit on the size of files; what was said."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (600, resource.RLIM_INFINITY))
    try:
        return bench(directory, cache)["end"]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def in_a_closed_directory(checkpoint: str) -> Any:
    """Train, and run the tiny study, where this user may not write; what was said."""
    if not os.geteuid():
        os.seteuid(65534)
    said = []
    for attempt in (
        lambda: lives.live("backprop", Path(checkpoint)),
        lambda: runner.run(tiny.study, jobs=0, out=Path(checkpoint) / "run"),
    ):
        try:
            attempt()
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    if os.getuid() != os.geteuid():
        os.seteuid(0)
    return said


def warm_up() -> None:
    """Let torch import now what it imports at the first step of an optimizer; nothing is computed on threads."""
    weight = torch.nn.Parameter(torch.zeros(3))
    for kind in (torch.optim.SGD, torch.optim.Adam):
        weight.grad = torch.ones(3)
        kind([weight], lr=0.1).step()


def main() -> None:
    for line in sys.stdin:
        life, args, answer = json.loads(line)
        if not life:
            _, status = os.waitpid(int(answer), 0)
            said = str(os.waitstatus_to_exitcode(status))
        else:
            pid = os.fork()
            if not pid:
                _live(life, args, Path(answer))
            said = str(pid)
        sys.stdout.write(said + "\n")
        sys.stdout.flush()


def _live(life: str, args: list[Any], answer: Path) -> None:
    code = 1
    try:
        answer.write_text(json.dumps(globals()[life](*args)))
        code = 0
    except BaseException as error:
        answer.write_text(f"{type(error).__name__}: {error}")
        if isinstance(error, SystemExit) and isinstance(error.code, int):
            code = error.code
        elif isinstance(error, KeyboardInterrupt):
            code = 130
    finally:
        os._exit(code)


if __name__ == "__main__":
    import numba  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch

    from neuropil.bench import runner
    from tests.bench import tiny_study as tiny
    from tests.guarantees import lives
    from tests.guarantees.disk import Disk

    torch.set_num_threads(1)
    warm_up()
    main()
