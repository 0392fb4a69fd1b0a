"""What earlier versions wrote is read, what newer ones wrote is refused, and names do not vanish."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_flatten

from neuropil.bench.store import content_key, read_run
from neuropil.bench.store import read_trial as read_trial
from neuropil.errors import CheckpointError
from neuropil.training import read_checkpoint
from tests.guarantees.golden import FIXTURES, NAMES, RUN, TREE, names

pytestmark = pytest.mark.guarantee("R12")

CHECKPOINTS = sorted(FIXTURES.glob("checkpoint-*"))
RUNS = sorted(FIXTURES.glob("run-*"))


def test_every_schema_has_a_fixture() -> None:
    from neuropil.bench.result import SCHEMA as RUN_SCHEMA
    from neuropil.training.checkpoint import SCHEMA

    assert [path.name for path in CHECKPOINTS] == [f"checkpoint-{n}" for n in range(1, SCHEMA + 1)]
    assert [path.name for path in RUNS] == [f"run-{n}" for n in range(1, RUN_SCHEMA + 1)]


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.name)
def test_a_checkpoint_of_every_schema_is_read(path: Path) -> None:
    leaves, shape = tree_flatten(read_checkpoint(path))
    expected, expected_shape = tree_flatten(TREE)
    assert shape == expected_shape
    for found, value in zip(leaves, expected, strict=True):
        if isinstance(value, torch.Tensor):
            assert found.dtype == value.dtype and torch.equal(found, value)
        else:
            assert found == value and type(found) is type(value)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_a_run_of_every_schema_is_read(path: Path) -> None:
    assert read_run(path) == dataclasses.replace(RUN, directory=path)


@pytest.mark.parametrize("schema", [2, 99, 10**30])
def test_a_newer_schema_is_refused_in_one_line(schema: int, tmp_path: Path) -> None:
    newer = tmp_path / "c"
    shutil.copytree(CHECKPOINTS[-1], newer)
    manifest = json.loads((newer / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps({**manifest, "schema": schema}))
    with pytest.raises(CheckpointError, match=rf"schema {schema}.*update neuropil") as caught:
        read_checkpoint(newer)
    assert len(str(caught.value).splitlines()) == 1
    run = tmp_path / "run"
    shutil.copytree(RUNS[-1], run)
    content = json.loads((run / "run.json").read_text())
    del content["sha256"]
    content["schema"] = schema
    (run / "run.json").write_text(json.dumps({**content, "sha256": content_key(content)}))
    trial = next((run / "trials").iterdir())
    trial.write_text(json.dumps({**json.loads(trial.read_text()), "schema": schema}))
    for read in (lambda: read_run(run), lambda: read_trial(trial)):
        with pytest.raises(CheckpointError, match=rf"schema is {schema}") as caught:
            read()
        assert len(str(caught.value).splitlines()) == 1 and re.search(r"expected \d", str(caught.value))


def test_no_public_name_has_vanished() -> None:
    noted, now = json.loads(NAMES.read_text())["public"], names()["public"]
    gone = {package: sorted(set(noted[package]) - set(now.get(package, ()))) for package in noted}
    assert not any(gone.values()), (
        f"renamed or removed on purpose? python -m tests.guarantees.golden ({gone})"
    )


def test_saved_keys_are_the_noted_ones() -> None:
    noted, now = json.loads(NAMES.read_text())["keys"], names()["keys"]
    assert {name: now.get(name) for name in noted} == noted, "old checkpoints could not be read"
