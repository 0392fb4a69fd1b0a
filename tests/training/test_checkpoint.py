from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._pytree import tree_leaves

from neuropil.errors import CheckpointError, ConfigError
from neuropil.training import read_checkpoint, save_checkpoint
from neuropil.training.checkpoint import checkpoints, flatten, read_latest, unflatten

FILES = ("tensors.safetensors", "state.json", "manifest.json")

numbers = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=5)
)
tensors = st.builds(
    lambda shape, dtype: torch.ones(shape).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]),
)
keys = st.one_of(
    st.sampled_from(["a", "a/b", "b", "__tensor__", "__tuple__", "__items__"]), st.integers(0, 3)
)
trees = st.recursive(
    numbers | tensors,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=12,
)


def identical(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(identical, a, b))
    return a == b


@settings(max_examples=150, deadline=None)
@given(trees)
def test_any_tree_comes_back_as_it_was(tree: Any) -> None:
    held: dict[str, torch.Tensor] = {}
    flat = json.loads(json.dumps(flatten(tree, held)))
    assert identical(unflatten(flat, held), tree)


def test_it_comes_back_from_disk(tmp_path: Path) -> None:
    tree = {"a/b": torch.rand(2), "a": {"b": torch.zeros(0, 3)}, 1: (float("inf"), [True, None, "é"])}
    tree["view"] = torch.arange(6.0).reshape(2, 3).mT  # not contiguous
    assert identical(read_checkpoint(save_checkpoint(tmp_path, 3, tree)), tree)


@pytest.mark.parametrize(
    ("tree", "match"),
    [
        ({"a": {"b": object()}}, "^/a/b: a object cannot be saved"),
        ({"a": [1, {2}]}, "^/a/1: a set cannot"),
        ({"a": {(1, 2): 0}}, "^/a: a tuple cannot be a key"),
        ({"a": lambda: 0}, "^/a: a function cannot"),
        ({"a": torch.rand(2).to_sparse()}, "^/a: a Tensor cannot be saved"),
    ],
)
def test_what_cannot_be_saved_is_refused_in_one_line(tree: Any, match: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"good": 1})
    with pytest.raises(CheckpointError, match=match) as caught:
        save_checkpoint(tmp_path, 2, tree)
    assert "\n" not in str(caught.value)
    assert read_latest(tmp_path) == ({"good": 1}, [])
    assert not list(tmp_path.glob(".saving*"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = {"w": torch.arange(12.0).reshape(3, 4), "step": 7, "names": ["a", "b"], "t": (1.5, None)}
    return save_checkpoint(tmp_path_factory.mktemp("saved"), 7, tree)


def refused(path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.guarantee("R3")
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_is_detected(saved: Path, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "copy"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(saved, path)
    target = path / data.draw(st.sampled_from(FILES))
    content = bytearray(target.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    target.write_bytes(content)
    refused(path)


@pytest.mark.guarantee("R3")
@pytest.mark.parametrize("name", FILES)
def test_any_truncation_is_detected(saved: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "copy"
    shutil.copytree(saved, path)
    whole = (saved / name).read_bytes()
    for length in range(len(whole)):
        (path / name).write_bytes(whole[:length])
        refused(path)
    (path / name).write_bytes(whole + b" ")
    if name != "manifest.json":  # a space after JSON says nothing else
        refused(path)
    (path / name).unlink()
    refused(path)


@pytest.mark.guarantee("R3")
def test_a_mix_of_two_is_detected(saved: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path, 8, {"w": torch.zeros(3, 4), "step": 8})
    for name in FILES[:2]:
        mix = tmp_path / f"mix-{name}"
        shutil.copytree(saved, mix)
        shutil.copy(other / name, mix / name)
        refused(mix)


@pytest.mark.guarantee("R12")
@pytest.mark.parametrize("schema", [0, 2, 999, "1", None])
def test_another_schema_is_refused_by_its_number(saved: Path, tmp_path: Path, schema: Any) -> None:
    path = tmp_path / "copy"
    shutil.copytree(saved, path)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "schema": schema}))
    newer = isinstance(schema, int) and schema > 1
    with pytest.raises(
        CheckpointError, match=f"schema {schema!r}, this version reads 1" + "; update" * newer
    ):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"[" * 5000, b"\xff\xfe", b'{"schema": 1}'])
def test_a_manifest_of_anything_else_is_refused(saved: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "copy"
    shutil.copytree(saved, path)
    (path / "manifest.json").write_bytes(content)
    refused(path)


@pytest.mark.guarantee("R3")
def test_a_damaged_newest_falls_back_and_says_so(tmp_path: Path) -> None:
    for step in (1, 2):
        newest = save_checkpoint(tmp_path, step, {"step": step})
    (newest / "state.json").write_bytes(b"{}")
    tree, problems = read_latest(tmp_path)
    assert tree == {"step": 1}
    assert len(problems) == 1 and str(newest) in problems[0] and "altered" in problems[0]
    shutil.rmtree(checkpoints(tmp_path)[0])
    assert read_latest(tmp_path)[0] is None
    assert read_latest(tmp_path / "nowhere") == (None, [])


@pytest.mark.guarantee("R2")
def test_files_are_synced_before_the_rename_and_the_folders_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order that survives a power cut: data, names inside, the rename, the name outside, then pruning."""
    calls: list[str] = []
    fsync, rename, remove = os.fsync, os.rename, shutil.rmtree

    def synced(handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        if os.path.isfile(path):
            assert os.fstat(handle).st_size > 0
        calls.append(f"sync {Path(path).name if os.path.isfile(path) else 'folder ' + Path(path).name[:7]}")
        fsync(handle)

    def renamed(source: Any, target: Any) -> None:
        calls.append("rename")
        rename(source, target)

    def removed(path: Any, **settings: Any) -> None:
        calls.append("remove")
        remove(path, **settings)

    for step in (1, 2):
        save_checkpoint(tmp_path / "run", step, {"w": torch.ones(2)})
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    monkeypatch.setattr(shutil, "rmtree", removed)
    save_checkpoint(tmp_path / "run", 3, {"w": torch.ones(2)})
    assert calls == [
        *(f"sync {n}" for n in FILES),
        "sync folder .saving",
        "rename",
        "sync folder run",
        "remove",
    ]


def test_the_last_two_remain_and_leftovers_go(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / ".saving-killed").mkdir()
    for step in (5, 5, 90, 3):  # the same step twice, then a new run in the same place
        save_checkpoint(tmp_path, step, {"step": step})
    assert [read_checkpoint(path) for path in checkpoints(tmp_path)] == [{"step": 90}, {"step": 3}]
    assert read_latest(tmp_path)[0] == {"step": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000003-step-90", "000004-step-3", "notes"]
    with pytest.raises(ConfigError, match="keep: got 0"):
        save_checkpoint(tmp_path, 1, {}, keep=0)


@pytest.mark.guarantee("R13")
@pytest.mark.parametrize("point", ["fsync", "rename"])
def test_a_full_disk_keeps_the_last_good_one(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, 1, {"step": 1})

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, point, full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*last good checkpoint is kept"):
        save_checkpoint(tmp_path, 2, {"step": 2})
    assert read_latest(tmp_path) == ({"step": 1}, [])
    assert not list(tmp_path.glob(".saving*"))


def test_a_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be saved"):
        save_checkpoint(tmp_path / "file", 1, {})


def test_leaves_are_copies() -> None:
    held: dict[str, torch.Tensor] = {}
    w = torch.zeros(2)
    tree = unflatten(flatten({"w": w}, held), held)
    w += 1
    assert not tree_leaves(tree)[0].any()
