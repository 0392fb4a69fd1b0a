"""Power loss at any moment, with any of the unsynced writes lost or torn, leaves the last save or the one before."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from neuropil.bench.result import TrialRecord
from neuropil.bench.store import read_trial, write_trial
from neuropil.errors import CheckpointError
from neuropil.training import read_checkpoint, save_checkpoint
from neuropil.training.checkpoint import checkpoints, read_latest
from tests.guarantees.disk import Disk, Step
from tests.guarantees.table import count

pytestmark = [pytest.mark.guarantee("R2"), pytest.mark.timeout(1200)]


class Change(NamedTuple):
    """A name in a folder comes to mean something else, or nothing; not durable before its folder is synced."""

    folder: int
    name: str
    now: int | None
    also: Change | None = None  # the other half of a rename: both happen or none


class Device:
    """A disk that keeps a change of a folder only once the folder is synced, a content only once the file is.

    Journalling file systems lose less: they keep changes in their order. A rename is atomic on all of them.
    """

    def __init__(self, root: Path) -> None:
        self.numbers = itertools.count()
        self.folders: dict[int, dict[str, int]] = {}
        self.contents: dict[int, bytes] = {}  # durable
        self.written: dict[int, bytes] = {}  # written and not synced
        self.changes: list[Change] = []
        self.live: dict[str, int] = {}  # path: what it means to running processes
        self._add(str(root))

    def _add(self, path: str) -> int:
        node = self.live[path] = next(self.numbers)
        self.folders[node] = {}
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name) if os.path.isdir(path) else ():
            if entry.is_dir():
                self.folders[node][entry.name] = self._add(entry.path)
            else:
                file = self.live[entry.path] = next(self.numbers)
                self.contents[file] = Path(entry.path).read_bytes()
                self.folders[node][entry.name] = file
        return node

    def apply(self, step: Step, final: dict[str, bytes]) -> None:
        """Take a step that a process made."""
        parent, name = os.path.split(step.path)
        if step.kind == "sync folder":
            node = self.live[step.path]
            for change in [c for c in self.changes if node in (c.folder, c.also and c.also.folder)]:
                self._keep(change)
                self.changes.remove(change)
        elif step.kind == "sync file":
            self.contents[self.live[step.path]] = step.data
            self.written.pop(self.live[step.path], None)
        elif step.kind in ("make folder", "create file"):
            if step.path in self.live:
                return
            node = self.live[step.path] = next(self.numbers)
            if step.kind == "make folder":
                self.folders[node] = {}
            else:
                self.contents[node], self.written[node] = b"", final.get(step.path, b"")
            self.changes.append(Change(self.live[parent], name, node))
        elif step.kind == "rename":
            node, (folder, new) = self.live.pop(step.path), os.path.split(step.other)
            arrives = Change(self.live[folder], new, node)
            self.changes.append(Change(self.live[parent], name, None, arrives))
            moved = {
                path: self.live.pop(path) for path in list(self.live) if path.startswith(step.path + "/")
            }
            self.live |= {step.other + path[len(step.path) :]: inside for path, inside in moved.items()}
            self.live[step.other] = node
        else:
            self.live.pop(step.path)
            self.changes.append(Change(self.live[parent], name, None))

    def _keep(self, change: Change, folders: dict[int, dict[str, int]] | None = None) -> None:
        folders = self.folders if folders is None else folders
        if change.also is not None:
            self._keep(change.also, folders)
        if change.now is None:
            folders[change.folder].pop(change.name, None)
        else:
            folders[change.folder][change.name] = change.now

    def crashes(
        self, draw: random.Random, most: int
    ) -> Iterator[tuple[dict[int, dict[str, int]], dict[int, bytes]]]:
        """What power loss may leave now: any subset of changes, each unsynced file empty, torn or whole."""
        subsets = itertools.product((False, True), repeat=len(self.changes))
        tears = itertools.product((0.0, 0.5, 1.0), repeat=len(self.written))
        every = list(itertools.product(subsets, tears))
        for kept, parts in every if len(every) <= most else draw.sample(every, most):
            folders = {node: dict(names) for node, names in self.folders.items()}
            for change in itertools.compress(self.changes, kept):
                self._keep(change, folders)
            contents = dict(self.contents)
            for (node, data), part in zip(self.written.items(), parts, strict=True):
                contents[node] = data[: int(len(data) * part)]
            yield folders, contents

    def write(self, target: Path, folders: dict[int, dict[str, int]], contents: dict[int, bytes]) -> None:
        """Put what is left after a crash into a real directory."""
        stack = [(target, next(iter(self.folders)))]
        while stack:
            place, node = stack.pop()
            place.mkdir()
            for name, inside in folders[node].items():
                if inside in folders:
                    stack.append((place / name, inside))
                else:
                    (place / name).write_bytes(contents[inside])


def crash_everywhere(
    root: Path, save: Callable[[], Any], check: Callable[[Path, bool], None], draw: random.Random, most: int
) -> int:
    """Let power fail before every step of `save` and after it; `check(what is left, whether save had returned)`."""
    before = Device(root)
    with Disk(root) as disk:
        save()
    final = {step.path: step.data for step in disk.steps if step.kind == "sync file"}
    tried = 0
    for number in range(len(disk.steps) + 1):
        for state in before.crashes(draw, most):
            left = root.with_name(f"left-{tried}")
            before.write(left, *state)
            check(left, number == len(disk.steps))
            tried += 1
        if number < len(disk.steps):
            before.apply(disk.steps[number], final)
    return tried


def tree(step: int) -> dict[str, Any]:
    return {"step": step, "x": torch.full((5,), float(step))}


@pytest.mark.parametrize("saved", [0, 1, 2, 3])
def test_a_checkpoint_survives_power_loss(
    tmp_path: Path, saved: int, record_property: Callable[[str, Any], None]
) -> None:
    root = tmp_path / "c"
    root.mkdir()
    for step in range(saved):
        save_checkpoint(root, step, tree(step))

    def check(left: Path, returned: bool) -> None:
        found, _ = read_latest(left)
        steps = None if found is None else found["step"]
        assert steps == saved if returned else steps in (saved, saved - 1 if saved else None)
        if found is not None:
            assert torch.equal(found["x"], tree(steps)["x"])
        save_checkpoint(left, 99, tree(99))
        assert read_latest(left)[0]["step"] == 99
        assert not list(left.glob(".saving-*")) and len(checkpoints(left)) <= 2

    draw = random.Random(saved)
    tried = crash_everywhere(
        root, lambda: save_checkpoint(root, saved, tree(saved)), check, draw, count(4, 400)
    )
    record_property("states after power loss in a save of a checkpoint", tried)


@pytest.mark.parametrize("rewritten", [False, True])
def test_a_stored_trial_survives_power_loss(
    tmp_path: Path, rewritten: bool, record_property: Callable[[str, Any], None]
) -> None:
    def record(value: float) -> TrialRecord:
        return TrialRecord("arm", 0, "key", {}, {"acc": value}, {"seconds": 1.0})

    root = tmp_path / "run"
    root.mkdir()
    if rewritten:
        write_trial(root / "arm-0.json", record(0.1))

    def check(left: Path, returned: bool) -> None:
        try:
            found = read_trial(left / "arm-0.json").metrics["acc"]
        except FileNotFoundError:
            found = None
        assert found == 0.2 if returned else found in (0.2, 0.1 if rewritten else None)

    tried = crash_everywhere(
        root, lambda: write_trial(root / "arm-0.json", record(0.2)), check, random.Random(0), count(20, 400)
    )
    record_property("states after power loss in a write of a trial", tried)


def test_the_replay_sees_a_missing_sync(tmp_path: Path) -> None:
    """The simulation can fail: without any one of the syncs, some state is not whole."""
    for name, forgets in {
        "file": lambda handle: not os.path.isdir(f"/proc/self/fd/{handle}"),
        "folder": lambda handle: os.path.isdir(f"/proc/self/fd/{handle}"),
    }.items():
        root = tmp_path / name / "c"
        root.mkdir(parents=True)
        save_checkpoint(root, 0, tree(0))
        lost = []

        def check(left: Path, returned: bool, lost: list[Path] = lost) -> None:
            found, problems = read_latest(left)
            if problems or found is None or (returned and found["step"] == 0):
                lost.append(left)

        real = os.fsync

        def save(root: Path = root, real: Any = real, forgets: Any = forgets) -> None:
            seen = os.fsync
            os.fsync = lambda handle: None if forgets(handle) else seen(handle)
            try:
                save_checkpoint(root, 1, tree(1))
            finally:
                os.fsync = seen

        crash_everywhere(root, save, check, random.Random(0), 400)
        assert lost, f"the replay does not notice a {name} that is not synced"


def test_a_save_touches_only_what_saves_wrote(tmp_path: Path) -> None:
    foreign = [tmp_path / "notes.txt", tmp_path / "000000-mine", tmp_path / "sub" / "000001-step-1.txt"]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    for step in range(5):
        save_checkpoint(tmp_path, step, tree(step))
    assert all(path.read_text() == "mine" for path in foreign)
    assert [read_checkpoint(path)["step"] for path in checkpoints(tmp_path)] == [3, 4]
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "sub")
