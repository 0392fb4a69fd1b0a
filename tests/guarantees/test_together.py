"""Several processes at one place: one works, the others are told, and what is read is whole."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuropil.bench.runner import resume
from neuropil.bench.store import held
from neuropil.errors import CheckpointError
from neuropil.training import read_checkpoint
from neuropil.training.checkpoint import read_latest
from tests.bench.tiny_study import study
from tests.guarantees.nursery import PATIENCE, Nursery
from tests.guarantees.table import count

pytestmark = [pytest.mark.guarantee("R14"), pytest.mark.timeout(600)]

Note = Callable[[str, Any], None]


def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def test_of_many_processes_one_at_a_time_holds_a_run(
    nursery: Nursery, tmp_path: Path, record_property: Note
) -> None:
    lives = [nursery.start("hold", tmp_path / "run", tmp_path / "in", count(15, 100)) for _ in range(8)]
    ends = [life.result() for life in lives]
    record_property("times that a run was held, by eight processes", sum(end["won"] for end in ends))
    record_property("times that a process was turned away", sum(end["lost"] for end in ends))
    assert sum(end["lost"] for end in ends) > 0


@pytest.mark.parametrize("stopped", [False, True])
def test_a_holder_that_is_killed_lets_go_and_one_that_sleeps_does_not(
    nursery: Nursery, tmp_path: Path, stopped: bool
) -> None:
    holder = nursery.start("hold_and_wait", tmp_path / "run", tmp_path / "ready")
    until((tmp_path / "ready").exists)
    if stopped:
        holder.send(signal.SIGSTOP)
    with pytest.raises(CheckpointError, match="another process is at work"), held(tmp_path / "run"):
        pass
    holder.send(signal.SIGKILL)
    assert holder.end() == -signal.SIGKILL
    with held(tmp_path / "run"):
        pass


def test_a_second_resume_of_a_run_is_told_in_one_line(nursery: Nursery, tmp_path: Path) -> None:
    nursery.start("bench", tmp_path / "run", tmp_path / "cache").result()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.json")}
    holder = nursery.start("hold_and_wait", tmp_path / "run", tmp_path / "ready")
    until((tmp_path / "ready").exists)
    with pytest.raises(CheckpointError) as caught:
        resume(tmp_path / "run", study=study, jobs=0)
    assert len(str(caught.value).splitlines()) == 1
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.json")}
    holder.send(signal.SIGKILL)
    holder.end()


def test_a_reader_beside_two_writers_of_checkpoints_finds_whole_ones(
    nursery: Nursery, tmp_path: Path, record_property: Note
) -> None:
    writers = [nursery.start("save_often", tmp_path / "c", number, count(40, 400)) for number in (1, 2)]
    until(lambda: read_latest(tmp_path / "c")[0] is not None)
    reads = 0
    while any((tmp_path / "c").exists() and _alive(life.pid) for life in writers):
        tree, _ = read_latest(tmp_path / "c")
        if tree is not None:  # every one that was listed may be gone by the time it is read
            assert (tree["x"] == tree["who"]).all()
            reads += 1
    ends = [life.result() for life in writers]
    assert sum(end["saved"] for end in ends) > 0
    tree, problems = read_latest(tmp_path / "c")
    assert tree is not None and problems == []
    record_property("reads of a checkpoint beside two writers", reads)


def test_two_runs_that_share_a_cache_find_the_same(nursery: Nursery, tmp_path: Path) -> None:
    lives = [nursery.start("bench", tmp_path / f"run-{n}", tmp_path / "cache") for n in range(4)]
    assert len({life.result()["end"] for life in lives}) == 1


def _alive(pid: int) -> bool:
    """Whether a process runs still; one that ended and was not waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_reading_a_checkpoint_while_it_goes_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(tmp_path / "000001-step-1")
    assert os.listdir(tmp_path) == []
