"""An index of runs, so that thousands of trials are listed and compared at once.

The JSON files of a run are the truth; the index remembers what they said when they had this size and time of change.
A row that does not fit its file, or whose hash does not fit its content, is read anew from the file. An index that is
missing, damaged or of another version is made anew, and one that cannot be written is kept in memory: nothing but
time is ever lost with it. SQLite's write-ahead log lets several processes share it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from neuropil.bench.claim import Verdict
from neuropil.bench.result import Result, TrialRecord
from neuropil.bench.store import cache_directory, canonical, read_plan, read_trial, trial_file
from neuropil.errors import CheckpointError

if sys.platform != "win32":
    import fcntl

VERSION = 1
_TABLE = "CREATE TABLE IF NOT EXISTS kept (file TEXT PRIMARY KEY, stamp TEXT, content TEXT, hash TEXT) WITHOUT ROWID"
_MANY = 500  # files asked for in one query


class Run(NamedTuple):
    """A run, finished or not."""

    directory: Path
    id: str
    scale: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    verdict: Verdict | None  # of the primary claim; None when unfinished, or not at laptop scale
    finished: bool
    failures: int
    seconds: float
    when: str  # local time of the last change, ISO 8601
    where: str  # the machine
    primary: tuple[str, ...]  # metrics that the primary claim compares


class Row(NamedTuple):
    """The numbers of one trial."""

    arm: str
    seed: int
    metrics: dict[str, float | None]
    cost: dict[str, float]


class Table(NamedTuple):
    """A run and the numbers of its trials, by arm and seed in the order of the run."""

    run: Run
    rows: tuple[Row, ...]

    def by_seed(self, arm: str, metric: str) -> dict[int, float]:
        """A metric of an arm where it is defined."""
        found = {row.seed: row.metrics.get(metric) for row in self.rows if row.arm == arm}
        return {seed: value for seed, value in found.items() if value is not None}


def list_runs(root: Path | str = "runs") -> tuple[Run, ...]:
    """Runs in a directory, at most two levels down, newest first; what is no readable run is left out."""
    root = Path(root)
    files = [root / "run.json", *root.glob("*/run.json"), *root.glob("*/*/run.json")]
    stamps = {file: stamp for file in files if (stamp := _stamp(file))}
    contents = _contents(stamps, lambda file: _summary(file.parent), skip=True)
    runs = [_run(file, stamps[file], content) for file, content in contents.items()]
    return tuple(sorted(runs, key=lambda run: (run.when, str(run.directory)), reverse=True))


def read_table(directory: Path | str) -> Table:
    """The numbers of a run. Raises CheckpointError in one line when there is no run or a file of it is damaged."""
    directory = Path(directory)
    file = directory / "run.json"
    stamp = _stamp(file)
    if stamp is None:
        raise CheckpointError(f"{directory}: no run here (run.json is missing)")
    run = _run(file, stamp, _contents({file: stamp}, lambda _: _summary(directory))[file])
    there = _stamps(directory / "trials")
    wanted = {
        path: there[path.name]
        for arm in run.arms
        for seed in run.seeds
        if (path := trial_file(directory, arm, seed)).name in there
    }
    contents = _contents(wanted, lambda path: _numbers(read_trial(path)))
    return Table(run, tuple(Row(**content) for content in contents.values()))


def remember(result: Result) -> None:
    """Put a run that is in memory into the index, so that nobody has to read its files."""
    if result.directory is None:
        return
    there = _stamps(result.directory / "trials")
    rows = []
    for record in result.trials:
        path = trial_file(result.directory, record.arm, record.seed)
        if path.name in there:
            rows.append((path, there[path.name], _numbers(record)))
    with _opened() as database:
        _keep(database, rows)


def _contents(
    stamps: Mapping[Path, str], read: Callable[[Path], Any], *, skip: bool = False
) -> dict[Path, Any]:
    """What each file says, from the index where it still fits, else by reading the file."""
    with _opened() as database:
        known = _known(database, stamps)
        fresh = []
        for file, stamp in stamps.items():
            if file not in known:
                try:
                    fresh.append((file, stamp, read(file)))
                except (CheckpointError, FileNotFoundError):
                    if not skip:
                        raise
        _keep(database, fresh)
    known |= {file: content for file, _, content in fresh}
    return {file: known[file] for file in stamps if file in known}


def _known(database: sqlite3.Connection, stamps: Mapping[Path, str]) -> dict[Path, Any]:
    names = {_name(file): file for file in stamps}
    found: dict[Path, Any] = {}
    waiting = list(names)
    for start in range(0, len(waiting), _MANY):
        some = waiting[start : start + _MANY]
        marks = ",".join("?" * len(some))
        try:
            rows = database.execute(
                f"SELECT file, stamp, content, hash FROM kept WHERE file IN ({marks})", some
            )
            for name, stamp, content, digest in rows:
                file = names[name]
                if stamp == stamps[file] and digest == _hash(name, stamp, content):
                    found[file] = json.loads(content)
        except sqlite3.Error:
            break  # damaged since it was opened: the files answer
    return found


def _keep(database: sqlite3.Connection, rows: Iterable[tuple[Path, str, Any]]) -> None:
    lines = []
    for file, stamp, content in rows:
        name, text = _name(file), canonical(content)
        lines.append((name, stamp, text, _hash(name, stamp, text)))
    if lines:
        with (
            contextlib.suppress(sqlite3.Error),
            database,
        ):  # full disk, another writer for long: the files remain
            database.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?)", lines)


@contextlib.contextmanager
def _opened() -> Iterator[sqlite3.Connection]:
    """The index; made anew when it is damaged, in memory when it cannot be written."""
    path = cache_directory() / "index.sqlite"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            database = _connect(path)
        except sqlite3.DatabaseError:
            database = _renewed(path)
    except (OSError, sqlite3.Error):
        database = _connect(":memory:")
    with contextlib.closing(database):
        yield database


def _connect(path: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=30)
    try:
        if database.execute("PRAGMA user_version").fetchone() != (VERSION,):
            with database:
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("DROP TABLE IF EXISTS kept")
                database.execute(_TABLE)
                database.execute(f"PRAGMA user_version={VERSION}")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute("SELECT file FROM kept LIMIT 1").fetchone()
    except BaseException:
        database.close()
        raise
    return database


def _renewed(path: Path) -> sqlite3.Connection:
    """The index made anew, by one process at a time; the next one finds it whole."""
    with _alone(path.with_suffix(".lock")):
        with contextlib.suppress(sqlite3.DatabaseError):
            return _connect(path)
        for ending in ("", "-wal", "-shm"):
            Path(f"{path}{ending}").unlink(missing_ok=True)
        return _connect(path)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _summary(directory: Path) -> dict[str, Any]:
    plan = read_plan(directory)
    primary = [each for each in plan.judgements if each.claim.primary]
    machine = plan.provenance.get("machine", {})
    sides = [side for each in primary for side in (each.claim.left, each.claim.right) if side]
    return {
        "id": plan.id,
        "scale": plan.scale,
        "arms": plan.arms,
        "seeds": plan.seeds,
        "verdict": primary[0].verdict if primary else None,
        "finished": bool(plan.seconds),
        "failures": len(plan.failures),
        "seconds": plan.seconds,
        "where": f"{machine.get('cpu', '')}, {machine.get('cores', '?')} cores",
        "primary": sorted({side.partition(".")[2] for side in sides}),
    }


def _run(file: Path, stamp: str, content: dict[str, Any]) -> Run:
    changed = datetime.fromtimestamp(int(stamp.partition(" ")[0]) / 1e9)
    return Run(
        directory=file.parent,
        id=content["id"],
        scale=content["scale"],
        arms=tuple(content["arms"]),
        seeds=tuple(content["seeds"]),
        verdict=content["verdict"],
        finished=content["finished"],
        failures=content["failures"],
        seconds=content["seconds"],
        when=changed.isoformat(timespec="seconds"),
        where=content["where"],
        primary=tuple(content["primary"]),
    )


def _numbers(record: TrialRecord) -> dict[str, Any]:
    return {
        "arm": record.arm,
        "seed": record.seed,
        "metrics": dict(record.metrics),
        "cost": dict(record.cost),
    }


def _stamps(directory: Path) -> dict[str, str]:
    """What changes with every file of a directory: time, size and place on the disk."""
    try:
        with os.scandir(directory) as entries:
            return {entry.name: _mark(entry.stat()) for entry in entries}
    except FileNotFoundError:
        return {}


def _stamp(file: Path) -> str | None:
    try:
        return _mark(file.stat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _mark(stat: os.stat_result) -> str:
    return f"{stat.st_mtime_ns} {stat.st_size} {stat.st_ino}"


def _name(file: Path) -> str:
    return os.path.abspath(file)


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
