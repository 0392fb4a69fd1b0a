"""Whatever happens to stored files is told in one line or changes nothing, and what was good before is used."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from neuropil.bench import catalogue
from neuropil.bench.progress import Event
from neuropil.bench.runner import resume, run
from neuropil.bench.store import read_plan, read_trial
from neuropil.errors import CheckpointError
from neuropil.training import read_checkpoint, save_checkpoint
from neuropil.training.checkpoint import checkpoints, read_latest
from tests.bench.tiny_study import study
from tests.guarantees.damage import damage_file, damage_folder
from tests.guarantees.lives import fingerprint, hash_of, stream, trainer
from tests.guarantees.table import count

pytestmark = [pytest.mark.guarantee("R3"), pytest.mark.timeout(1200)]

Note = Callable[[str, Any], None]


def told(read: Callable[[], Any], good: Any, *places: Path) -> bool:
    """Whether damage was told, in one line naming the place; content that differs must be."""
    try:
        found = read()
    except CheckpointError as error:
        line = str(error)
        assert "\n" not in line and any(str(place) in line for place in places), line
        return True
    assert found == good, "damage was read as if nothing had happened"
    return False


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of a life of learning, with every kind of state."""
    root = tmp_path_factory.mktemp("life") / "c"
    trainer("HLOP of spikes with rehearsal", root).fit(stream())
    return root


@pytest.mark.parametrize("part", range(4))
def test_damaged_checkpoints_are_told_and_the_one_before_is_used(
    saved: Path, part: int, tmp_path: Path, record_property: Note
) -> None:
    draw = random.Random(part)
    older, newest = checkpoints(saved)
    first, last = hash_of(read_checkpoint(older)), hash_of(read_checkpoint(newest))
    root = tmp_path / "c"
    shutil.copytree(saved, root)
    here, total, seen = root / newest.name, count(60, 1500), 0
    for _ in range(total):
        shutil.rmtree(here)
        shutil.copytree(newest, here)
        what = damage_folder(here, older, draw)
        if told(lambda: hash_of(read_checkpoint(here)), last, here):
            seen += 1
            tree, problems = read_latest(root)
            assert hash_of(tree) == first and len(problems) == 1, what
    record_property("mutations of checkpoints", total)
    record_property("of them told (the others changed nothing that is read)", seen)
    assert seen > 0.9 * total


def test_every_cut_of_a_checkpoint_is_told(tmp_path: Path, record_property: Note) -> None:
    path = save_checkpoint(tmp_path, 1, {"x": torch.arange(3.0), "n": [1, None]})
    cuts = 0
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for length in range(0, len(whole), count(5, 1)):
            file.write_bytes(whole[:length])
            with pytest.raises(CheckpointError, match=r"not a checkpoint|altered|cannot be read"):
                read_checkpoint(path)
            cuts += 1
        file.write_bytes(whole)
    assert read_checkpoint(path)["n"] == [1, None]
    record_property("cuts of a checkpoint", cuts)


def test_learning_goes_on_from_the_checkpoint_before_with_a_warning(tmp_path: Path) -> None:
    whole = trainer("EWC", tmp_path / "whole")
    whole.fit(stream())
    broken = trainer("EWC", tmp_path / "c")
    broken.fit(stream())
    newest = checkpoints(tmp_path / "c")[-1]
    (newest / "tensors.safetensors").write_bytes(b"")
    again = trainer("EWC", tmp_path / "c")
    with pytest.warns(UserWarning, match="fell back to an earlier checkpoint: .*altered"):
        again.fit(stream(), resume=True)
    assert fingerprint(again) == fingerprint(whole)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny study; its cache is beside it."""
    place = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEUROPIL_CACHE", str(place / "cache"))
        patch.setattr(catalogue, "results_directory", lambda: place / "results")
        run(study, jobs=0, out=place / "run")
    return place / "run"


def test_damaged_trials_and_runs_are_told(finished: Path, tmp_path: Path, record_property: Note) -> None:
    draw = random.Random(7)
    for source, read, name in (
        (finished / "trials" / "tiny-1.json", read_trial, "mutations of stored trials"),
        (finished / "run.json", lambda path: read_plan(path.parent), "mutations of run.json"),
    ):
        path = tmp_path / source.name
        whole = source.read_bytes()
        path.write_bytes(whole)
        good, total, seen = read(path), count(300, 2000), 0
        for _ in range(total):
            path.write_bytes(whole)
            damage_file(path, draw)
            seen += told(lambda: read(path), good, path, path.parent)  # noqa: B023
        record_property(name, total)
        record_property("of them told (the others changed nothing that is read)", seen)
        assert seen > 0.9 * total


def test_a_run_with_damaged_trials_ends_as_if_they_were_whole(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Note
) -> None:
    draw = random.Random(3)
    good = sorted(repr((t.arm, t.seed, t.metrics, t.curves)) for t in resume_quietly(finished, []).trials)
    for number in range(count(3, 40)):
        place = tmp_path / f"run-{number}"
        shutil.copytree(finished, place)
        monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path / f"cache-{number}"))
        trials = sorted((place / "trials").iterdir())
        hit = draw.sample(trials, 3)
        for path in hit:
            path.write_bytes(path.read_bytes()[: draw.randrange(20)])
        events: list[Event] = []
        result = resume_quietly(place, events)
        assert sorted(repr((t.arm, t.seed, t.metrics, t.curves)) for t in result.trials) == good
        warned = [event.message or "" for event in events if event.kind == "warning"]
        assert all(any(path.name in line for line in warned) for path in hit)
    record_property("runs with three damaged trials", count(3, 40))


def resume_quietly(place: Path, events: list[Event]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "results_directory", lambda: place.parent / "results")
        return resume(place, study=study, jobs=0, on_event=events.append)


def test_a_file_of_another_trial_is_not_taken_for_it(finished: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(finished, place)
    shutil.copy(place / "trials" / "tiny-0.json", place / "trials" / "tiny-1.json")
    events: list[Event] = []
    result = resume_quietly(place, events)
    whole = resume_quietly(finished, [])
    assert [dataclasses.replace(t, cost={}) for t in result.trials] == [
        dataclasses.replace(t, cost={}) for t in whole.trials
    ]
