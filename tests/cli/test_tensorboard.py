"""`neuropil run --tensorboard DIR`: what was measured, read back with TensorBoard's own reader."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from neuropil.bench import store
from neuropil.bench.progress import Event
from neuropil.bench.result import TrialRecord
from neuropil.cli.tensorboard import tensorboard
from neuropil.errors import ConfigError, MissingExtraError
from tests.cli.conftest import Call

RECORD = TrialRecord(
    "alpha", 3, "key", {}, {"acc": 0.75, "bwt": None}, {"seconds": 2.0}, {"loss": [2.0, None, 0.5]}
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    directory = tmp_path / "a-run"
    store.write_trial(store.trial_file(directory, "alpha", 3), RECORD)
    return directory


@pytest.mark.peer("tensorboard")
def test_every_defined_value_is_a_scalar(run: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    passed: list[str] = []
    with tensorboard(lambda event: passed.append(event.kind), tmp_path / "logs", run) as listener:
        listener(Event("planned", 0, 1))
        listener(Event("finished", 1, 1, "alpha", 3))
    assert passed == ["planned", "finished"]
    kept = EventAccumulator(str(tmp_path / "logs" / "a-run" / "alpha-3"))
    kept.Reload()
    seen = {tag: [(e.step, e.value) for e in kept.Scalars(tag)] for tag in kept.Tags()["scalars"]}
    assert seen == {
        "curve/loss": [(0, 2.0), (2, 0.5)],
        "metric/acc": [(0, 0.75)],
        "cost/seconds": [(0, 2.0)],
    }


def test_without_it_the_listener_is_untouched(run: Path) -> None:
    def listener(event: Event) -> None: ...

    with tensorboard(listener, None, run) as same:
        assert same is listener


def test_a_file_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match="is a file, expected a directory"),
        tensorboard(print, tmp_path / "file", run),
    ):
        pass


def test_the_missing_extra_is_told_in_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(MissingExtraError, match=r"pip install 'neuropil\[tensorboard\]'"),
        tensorboard(print, tmp_path / "logs", run),
    ):
        pass


@pytest.mark.peer("tensorboard")
def test_run_takes_it(bench: Path, call: Call) -> None:
    answer = call(
        "run", "alpha", "--scale", "smoke", "--jobs", "1", "--arms", "alpha", "--tensorboard", "logs"
    )
    assert answer.code == 0, answer.err
    assert [path.parent.name for path in Path("logs").rglob("events.*")] == ["alpha-0"]
