"""Whatever ends a run, what is left goes on to the same bits."""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from neuropil.data import Task
from neuropil.errors import CheckpointError
from neuropil.training import Trainer
from neuropil.training.checkpoint import checkpoints, read_latest
from tests.training.living import Death, live
from tests.training.worlds import BATCH, mlp, same, sgd, stream, task, weights

pytestmark = pytest.mark.guarantee("R1")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def whole() -> str:
    """What comes out when nothing happens."""
    return live(None)[0]


class Crash(Exception):
    pass


def crash() -> None:
    raise Crash


def test_a_checkpoint_directory_changes_nothing(whole: str, tmp_path: Path) -> None:
    assert live(tmp_path)[0] == whole


def test_killed_again_and_again_it_ends_at_the_same_bits(whole: str, tmp_path: Path) -> None:
    def child(point: str, count: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.training.living", str(tmp_path), point, str(count)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    for point, count in (("after_step", 5), ("after_fsync", 6), ("before_rename", 3), ("after_task", 1)):
        assert child(point, count).returncode == -signal.SIGKILL, f"not killed at {point}"
    done = child("never", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == whole


POINTS = ["before_task", "before_batch", "on_loss", "after_step", "after_task", "before_eval"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_crashed_anywhere_it_ends_at_the_same_bits(
    whole: str, tmp_path: Path, point: str, count: int
) -> None:
    with pytest.raises(Crash):
        live(tmp_path, Death(point, count, crash))
    assert live(tmp_path)[0] == whole


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("interrupt", ["signal", "exception"])
def test_interrupted_anywhere_it_ends_at_the_same_bits(
    whole: str, tmp_path: Path, point: str, interrupt: str
) -> None:
    def stop() -> None:
        if interrupt == "signal":
            signal.raise_signal(signal.SIGINT)
        else:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        live(tmp_path, Death(point, 3, stop))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert live(tmp_path)[0] == whole


def test_ctrl_c_waits_for_the_step_and_saves_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        live(tmp_path, Death("on_loss", 5, lambda: signal.raise_signal(signal.SIGINT)))
    tree, problems = read_latest(tmp_path)
    assert (
        tree["step"] == 5 and not problems
    )  # checkpoints are written at every second step: 5 is Ctrl-C's own


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        live(tmp_path, Death("on_loss", 6, twice))
    assert read_latest(tmp_path)[0]["step"] == 4  # the step under way is not half saved


def test_a_damaged_checkpoint_costs_steps_but_no_bits(whole: str, tmp_path: Path) -> None:
    with pytest.raises(Crash):
        live(tmp_path, Death("after_step", 8, crash))
    newest = checkpoints(tmp_path)[-1] / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="fell back to an earlier checkpoint: .*altered"):
        assert live(tmp_path)[0] == whole


def test_a_new_run_in_an_old_place_is_a_new_run(whole: str, tmp_path: Path) -> None:
    live(tmp_path)
    with pytest.raises(Crash):
        live(tmp_path, Death("after_step", 5, crash), resume=False)
    assert read_latest(tmp_path)[0]["step"] == 4
    assert live(tmp_path)[0] == whole


def test_a_finished_run_has_nothing_to_go_on_with(whole: str, tmp_path: Path) -> None:
    live(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert live(tmp_path, Death("before_batch", 1, crash))[0] == whole


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_tasks_given_as_loaders_go_on_in_their_order(tmp_path: Path, stop: int) -> None:
    """Their shuffling draws from torch's random state, as dropout does."""

    def run(directory: Path | None, *plugins: Any) -> dict[str, torch.Tensor]:
        source = task(count=40)
        tasks = [Task("a", DataLoader(source.train, 16, shuffle=True), source.validation, source.test)]
        model = mlp(dropout=0.2)
        trainer = Trainer(
            model, sgd(model), plugins=plugins, epochs=2, progress=False,
            checkpoint=directory, checkpoint_every=1,
        )  # fmt: skip
        trainer.fit(tasks, resume=directory is not None)
        return weights(model)

    expected = run(None)
    with pytest.raises(Crash):
        run(tmp_path, Death("before_batch", stop + 1, crash))
    torch.manual_seed(99)
    assert same(run(tmp_path, Death("never", 1, crash)), expected)


def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    def trainer(model: Any, plugins: Any = (), **settings: Any) -> Trainer:
        return Trainer(model, sgd(model), plugins=plugins, batch_size=BATCH, progress=False, **settings)

    trainer(mlp(), checkpoint=tmp_path).fit(stream(1))
    for model, plugins in ((torch.nn.Linear(12, 4), ()), (mlp(), [Death("never", 1, crash)])):
        with pytest.raises(CheckpointError, match="made by another model or other plugins") as caught:
            trainer(model, plugins, checkpoint=tmp_path).fit(stream(1), resume=True)
        assert "\n" not in str(caught.value)
