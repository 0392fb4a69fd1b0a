from __future__ import annotations

import csv
import dataclasses
import json
import multiprocessing
import random
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from neuropil.bench import index
from neuropil.bench.difference import differences
from neuropil.bench.export import records, write_export
from neuropil.bench.index import Table, list_runs, read_table, remember
from neuropil.bench.runner import run
from neuropil.bench.statistics import judge
from neuropil.bench.store import cache_directory, read_run, read_trial, trial_file, write_trial
from neuropil.errors import CheckpointError, ConfigError, MissingExtraError, UnknownNameError
from tests.bench.tiny_study import study


def two_runs() -> tuple[Path, Path]:
    run(study, jobs=0, out="runs/one")
    run(study, jobs=0, out="runs/two", seeds=[1, 2, 3], overrides={"shift": "0.4"})
    return Path("runs/one"), Path("runs/two")


def files_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> Any:
        pytest.fail(f"{path} was read")

    monkeypatch.setattr(index, "read_trial", refuse)


def index_file() -> Path:
    return cache_directory() / "index.sqlite"


def test_a_run_is_known_to_the_index_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = two_runs()
    files_are_not_read(monkeypatch)
    table = read_table(one)
    stored = read_run(one)
    assert [(row.arm, row.seed, row.metrics, row.cost) for row in table.rows] == [
        (trial.arm, trial.seed, trial.metrics, trial.cost) for trial in stored.trials
    ]
    assert table.by_seed("tiny", "acc") == dict(zip(stored.seeds, stored.metric("tiny", "acc"), strict=True))
    assert table.by_seed("tiny", "pid") == {}  # undefined everywhere


def test_runs_are_listed_newest_first_with_their_verdict() -> None:
    one, two = two_runs()
    (two.parent / "none").mkdir()
    (two.parent / "none" / "run.json").write_text("{")
    newest, oldest = list_runs()
    assert (newest.directory, oldest.directory) == (two, one)
    assert (oldest.id, oldest.scale, oldest.arms, oldest.seeds) == (
        "tiny",
        "laptop",
        ("tiny", "other"),
        (0, 1, 2),
    )
    assert (oldest.verdict, oldest.finished, oldest.failures, oldest.primary) == ("holds", True, 0, ("acc",))
    assert list_runs("nowhere") == () and list_runs(one) == (oldest,)
    with pytest.raises(CheckpointError, match="no run here"):
        read_table("nowhere")


def test_a_changed_file_is_read_anew_and_a_damaged_one_is_told() -> None:
    one, _ = two_runs()
    path = trial_file(one, "tiny", 0)
    write_trial(path, dataclasses.replace(read_trial(path), metrics={"acc": 0.125}))
    assert read_table(one).by_seed("tiny", "acc")[0] == 0.125
    path.write_text(path.read_text()[:-20])
    with pytest.raises(CheckpointError, match=r"tiny-0\.json"):
        read_table(one)
    path.unlink()
    assert set(read_table(one).by_seed("tiny", "acc")) == {1, 2}


@pytest.mark.parametrize(
    "damage", ["missing", "no database", "another version", "a lie", "cut", "a directory"]
)
def test_nothing_is_lost_with_the_index(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = two_runs()
    whole = read_table(one)
    with sqlite3.connect(index_file()) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if damage == "another version":
            database.execute("PRAGMA user_version=99")
        if damage == "a lie":
            database.execute("UPDATE kept SET content = replace(content, '0.', '0.9')")
    database.close()
    if damage == "no database":
        index_file().write_bytes(b"not a database" * 500)
    if damage == "cut":
        index_file().write_bytes(index_file().read_bytes()[:5000])
    if damage in ("missing", "a directory"):
        index_file().unlink()
    if damage == "a directory":
        index_file().mkdir()
    assert read_table(one) == whole
    if damage != "a directory":  # there the files answer
        files_are_not_read(monkeypatch)
    assert read_table(one) == whole


def test_any_damage_of_the_index_is_noticed(tmp_path: Path) -> None:
    one, _ = two_runs()
    whole = read_table(one)
    with sqlite3.connect(index_file()) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    sound, draw = index_file().read_bytes(), random.Random(0)
    for _ in range(60):
        damaged = bytearray(sound)
        for _ in range(draw.choice((1, 8, 200))):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        for ending in ("-wal", "-shm"):
            Path(f"{index_file()}{ending}").unlink(missing_ok=True)
        index_file().write_bytes(bytes(damaged))
        assert read_table(one) == whole


def read_often(directory: Path, times: int) -> None:
    for _ in range(times):
        index_file().unlink(missing_ok=True) if times % 2 else None
        assert len(read_table(directory).rows) == 6


def test_processes_share_the_index(own_places: Path) -> None:
    one, two = (path.resolve() for path in two_runs())
    context = multiprocessing.get_context("spawn")
    jobs = [(one, 20), (two, 20), (one, 7)]  # the last one takes the index away again and again
    processes = [context.Process(target=read_often, args=job) for job in jobs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def test_an_index_that_cannot_be_written_costs_only_time(monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = two_runs()
    whole = read_table(one)
    monkeypatch.setenv("NEUROPIL_CACHE", "/dev/null/nowhere")
    assert read_table(one) == whole and len(list_runs()) == 2
    remember(read_run(one))


def test_differences_are_those_of_a_claim_on_the_shared_seeds() -> None:
    one, two = map(read_table, two_runs())
    rows = {(row.arm, row.metric): row for row in differences(one, two)}
    assert set(rows) == {("tiny", "acc"), ("other", "acc"), ("tiny", "odd"), ("other", "odd")}
    row, claim = rows["tiny", "acc"], study.claims[0]
    shared = [(two.by_seed("tiny", "acc")[seed], one.by_seed("tiny", "acc")[seed]) for seed in (1, 2)]
    expected = judge(claim, *zip(*shared, strict=True))
    assert (row.mean, row.low, row.high) == (expected.value, expected.ci_low, expected.ci_high)
    assert row.seeds == 2 and row.second - row.first == pytest.approx(0.3, abs=1e-6)
    assert rows["tiny", "odd"].effect is None  # no spread: no unit to measure in
    assert differences(one, one, ["acc"])[0].mean == 0.0
    with pytest.raises(UnknownNameError, match="did you mean 'acc'"):
        differences(one, two, ["acd"])


def test_runs_that_share_nothing_are_told() -> None:
    one, two = map(read_table, two_runs())
    with pytest.raises(ConfigError, match="no arm"):
        differences(one, Table(two.run._replace(arms=("third",)), two.rows))
    with pytest.raises(ConfigError, match="no seed"):
        differences(one, Table(two.run, tuple(row._replace(seed=row.seed + 10) for row in two.rows)))


def test_exports_hold_every_trial_and_every_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    one, _ = two_runs()
    table = read_table(one)
    expected = records(table)
    assert [list(row) for row in expected[:1]] == [
        [
            "study",
            "scale",
            "arm",
            "seed",
            "metric.acc",
            "metric.odd",
            "metric.pid",
            "cost.operations",
            "cost.seconds",
        ]
    ]
    assert json.loads(write_export(table, Path("t.json"), "json").read_text()) == expected
    read = parquet.read_table(write_export(table, Path("t.parquet"), "parquet"))
    assert read.to_pylist() == expected and str(read.schema.field("metric.pid").type) == "double"
    with write_export(table, Path("t.csv"), "csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["metric.acc"]) for row in rows] == [row["metric.acc"] for row in expected]
    assert {row["metric.pid"] for row in rows} == {""}
    with pytest.raises(ConfigError, match="did you mean 'csv'"):
        write_export(table, Path("t"), "cvs")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"neuropil\[parquet\]"):
        write_export(table, Path("t"), "parquet")


def test_a_run_without_trials_is_an_empty_table(own_places: Path) -> None:
    run(study, jobs=0, out="runs/one", seeds=[0])
    for path in Path("runs/one/trials").iterdir():
        path.unlink()
    table = read_table("runs/one")
    assert table.rows == () and records(table) == []
    assert write_export(table, Path("t.csv"), "csv").read_text() == "study,scale,arm,seed\n"
