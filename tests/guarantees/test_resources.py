"""Memory stays flat, full and closed disks are told, signals end with a checkpoint."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuropil.training.checkpoint import checkpoints, read_latest
from tests.guarantees.lives import FAMILIES
from tests.guarantees.nursery import PATIENCE, Nursery
from tests.guarantees.table import LONG, count

pytestmark = [pytest.mark.guarantee("R13"), pytest.mark.timeout(1800)]


@pytest.mark.parametrize("name", FAMILIES if LONG else ["spikes", "HLOP", "replay"])
def test_memory_stays_flat(nursery: Nursery, name: str, record_property: Callable[[str, Any], None]) -> None:
    steps = count(400, 10_000)
    seen = np.array(nursery.start("memory", name, steps).result())
    later = seen[len(seen) // 2 :]
    objects = int(later[-1, 2] - later[0, 2])
    assert objects < 20 + steps // 1000, "objects are kept from step to step"
    if LONG:
        slope = np.polyfit(later[:, 0] / 1000, later[:, 1] / 1024, 1)[0]
        assert slope < 1.0, f"{slope:.2f} MB in 1,000 steps"
    record_property("steps with flat memory", steps)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", ["EWC", "OTTT"])
def test_a_signal_ends_training_with_a_checkpoint(
    nursery: Nursery, name: str, number: int, code: int, tmp_path: Path
) -> None:
    place = tmp_path / "c"
    life = nursery.start("train_on", name, place)
    deadline = time.monotonic() + PATIENCE
    while not checkpoints(place):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    before = checkpoints(place)[-1].name
    life.send(number)
    assert life.end() == code, life.answer.read_text()
    tree, problems = read_latest(place)
    assert tree is not None and problems == [] and checkpoints(place)[-1].name > before
    assert len(tree["history"]["losses"]) == tree["step"]
    assert not list(place.glob(".saving-*"))


def test_a_full_disk_is_told_and_the_last_good_checkpoint_is_kept(nursery: Nursery, tmp_path: Path) -> None:
    for name in ("backprop", "HLOP of spikes with rehearsal"):
        place = tmp_path / name
        said = nursery.start("train_on_full_disk", name, place).result()
        assert "the last good checkpoint is kept" in said and len(said.splitlines()) == 1
        tree, problems = read_latest(place)
        assert tree is not None and problems == [] and not list(place.glob(".saving-*"))
        whole = nursery.start("train", name, None).result()
        assert nursery.start("train", name, place).result()["end"] == whole["end"]


def test_a_run_on_a_full_disk_is_told_and_can_go_on(nursery: Nursery, tmp_path: Path) -> None:
    said = nursery.start("bench_on_full_disk", tmp_path / "run", tmp_path / "cache").result()
    assert "File too large" in said and len(said.splitlines()) == 1
    assert not [path for path in (tmp_path / "run").rglob("*.tmp")]
    whole = nursery.start("bench", tmp_path / "whole", tmp_path / "other").result()
    assert nursery.start("bench", tmp_path / "run", tmp_path / "cache").result()["end"] == whole["end"]


def test_a_closed_directory_is_told(nursery: Nursery) -> None:
    outer = Path(tempfile.mkdtemp(prefix="neuropil-closed-"))
    try:
        outer.chmod(0o755)
        closed = outer / "closed"
        closed.mkdir()
        closed.chmod(0o555)
        training, bench = nursery.start("in_a_closed_directory", closed).result()
        assert training.startswith("CheckpointError: ") and "Permission denied" in training
        assert "Permission denied" in bench
        assert not list(closed.iterdir())
    finally:
        outer.chmod(0o755)
        shutil.rmtree(outer, ignore_errors=True)
