from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuropil.bench import TrialRecord
from neuropil.bench.outcome import record_of
from neuropil.bench.store import (
    cache_directory,
    content_key,
    held,
    read_json,
    read_run,
    read_trial,
    write_text,
    write_trial,
)
from neuropil.bench.study import Outcome, Trial
from neuropil.errors import CheckpointError, DataError
from tests.bench.tiny_study import Tiny

RECORD = TrialRecord(
    "tiny", 0, "k", {"lr": 0.1}, {"acc": 1 / 3, "bwt": None}, {"seconds": 0.25}, {"c": [0.1, None]}
)


def test_a_trial_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    write_trial(tmp_path / "t.json", RECORD)
    assert read_trial(tmp_path / "t.json") == RECORD


def test_every_truncation_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    write_trial(path, RECORD)
    whole = path.read_bytes()
    for length in range(len(whole) - 1):  # without the last newline nothing is lost
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError) as caught:
            read_trial(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0), st.integers(0, 7))
def test_a_flipped_bit_is_told_or_harmless(tmp_path: Path, position: int, bit: int) -> None:
    path = tmp_path / "t.json"
    write_trial(path, RECORD)
    damaged = bytearray(path.read_bytes())
    damaged[position % len(damaged)] ^= 1 << bit
    path.write_bytes(bytes(damaged))
    try:
        assert read_trial(path) == RECORD  # such as the newline at the end turned into a blank
    except CheckpointError as error:
        assert "\n" not in str(error)


def test_nan_is_neither_written_nor_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_trial(tmp_path / "t.json", dataclasses.replace(RECORD, metrics={"acc": float("nan")}))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "n.json").write_text('{"a": NaN}')
    with pytest.raises(CheckpointError, match="NaN"):
        read_json(tmp_path / "n.json")


def test_a_write_is_synced_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def log_fsync(handle: int) -> None:
        calls.append("sync directory" if os.path.isdir(f"/proc/self/fd/{handle}") else "sync file")
        fsync(handle)

    def log_replace(source: str, target: Path) -> None:
        assert Path(source).parent == target.parent and Path(source).read_text() == "new"
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", log_fsync)
    monkeypatch.setattr(os, "replace", log_replace)
    write_text(tmp_path / "a.txt", "new")
    assert calls == ["sync file", "rename", "sync directory"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] and path.read_text() == "old"


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path / "elsewhere"))
    assert cache_directory() == tmp_path / "elsewhere"
    monkeypatch.delenv("NEUROPIL_CACHE")
    assert cache_directory().name == "neuropil"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1}', '{"schema": 1, "seeds": "x"}']
)
def test_what_is_no_run_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"run\.json"):
        read_run(tmp_path)
    with pytest.raises(CheckpointError, match="no run here"):
        read_run(tmp_path / "nowhere")


@given(st.dictionaries(st.text(), st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.text()))
def test_the_address_is_of_content_not_of_order(value: dict[str, object]) -> None:
    assert content_key(value) == content_key(dict(reversed(value.items())))
    assert content_key(value) == content_key(json.loads(json.dumps(value)))


def test_outcomes_become_plain_json() -> None:
    np = pytest.importorskip("numpy")
    cell = Trial("tiny", Tiny(), 3, "laptop")
    outcome = Outcome(
        {"acc": np.float32(0.1), "bad": float("inf"), "n": 2},
        curves={"c": np.array([1.0, np.nan])},
        arrays={"m": np.array([[1 / 3, np.nan]]), "d": {"x": (1, True, "s", None)}},
    )
    record = record_of(cell, outcome, "key", 1.5)
    assert record.metrics == {"acc": float(np.float32(0.1)), "bad": None, "n": 2.0}
    assert record.curves == {"c": [1.0, None]}
    assert record.arrays == {"m": [[0.333333, None]], "d": {"x": [1, True, "s", None]}}
    assert record.cost == {"seconds": 1.5} and record.config["layers"] == [4, 2]
    with pytest.raises(DataError, match=r"acc: expected a number"):
        record_of(cell, Outcome({"acc": "high"}), "key", 1.5)  # type: ignore[dict-item]
    with pytest.raises(DataError, match="must return an Outcome"):
        record_of(cell, {"acc": 1.0}, "key", 1.5)  # type: ignore[arg-type]


def test_one_process_at_a_time_works_on_a_run(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with (
        held(tmp_path / "a"),
        held(tmp_path / "b"),
        pytest.raises(CheckpointError, match="another"),
        held(tmp_path / "a"),
    ):
        pytest.fail("held twice")
    with held(tmp_path / "a"):
        assert list((tmp_path / "a").iterdir()) == []
