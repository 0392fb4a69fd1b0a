"""An index of runs, so that thousands of trials are listed and compared at once.

The JSON files of a run are the truth; the index remembers what they said when they had this size and time of change.
A row that does not fit its file, or whose hash does not fit its content, is read anew from the file. An index that is
missing, damaged or of another version is made anew, and where it cannot be written the files answer: nothing but time
is ever lost with it. SQLite's write-ahead log lets several processes share it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from neuropil.bench.claim import Verdict
from neuropil.bench.result import Result, TrialRecord
from neuropil.bench.store import cache_directory, canonical, read_plan, read_trial, trial_file
from neuropil.errors import CheckpointError

if sys.platform != "win32":
    import fcntl

VERSION = 1
_TABLE = "CREATE TABLE IF NOT EXISTS kept (file TEXT PRIMARY KEY, stamp TEXT, content TEXT, hash TEXT) WITHOUT ROWID"
_MANY = 500  # files asked for in one query
_NOT_DAMAGE = frozenset(  # a disk or another process in the way
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_PERM,
    }
)

Answer = TypeVar("Answer")


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
    newest = sorted(contents, key=lambda file: (_changed(stamps[file]), str(file)), reverse=True)
    return tuple(_run(file, stamps[file], contents[file]) for file in newest)


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
    _keep(rows)


def _contents(
    stamps: Mapping[Path, str], read: Callable[[Path], Any], *, skip: bool = False
) -> dict[Path, Any]:
    """What each file says, from the index where it still fits, else by reading the file."""
    known: dict[Path, Any] = _ask(lambda database: _known(database, stamps)) or {}
    fresh = []
    for file, stamp in stamps.items():
        if file not in known:
            try:
                fresh.append((file, stamp, read(file)))
            except (CheckpointError, FileNotFoundError):
                if not skip:
                    raise
    _keep(fresh)
    known |= {file: content for file, _, content in fresh}
    return {file: known[file] for file in stamps if file in known}


def _known(database: sqlite3.Connection, stamps: Mapping[Path, str]) -> dict[Path, Any]:
    names = {_name(file): file for file in stamps}
    found: dict[Path, Any] = {}
    waiting = list(names)
    for start in range(0, len(waiting), _MANY):
        some = waiting[start : start + _MANY]
        marks = ",".join("?" * len(some))
        rows = database.execute(f"SELECT file, stamp, content, hash FROM kept WHERE file IN ({marks})", some)
        for name, stamp, content, digest in rows:
            file = names.get(name)
            if file and stamp == stamps[file] and digest == _hash(name, stamp, str(content)):
                found[file] = json.loads(content)
    return found


def _keep(rows: Iterable[tuple[Path, str, Any]]) -> None:
    lines = []
    for file, stamp, content in rows:
        name, text = _name(file), canonical(content)
        lines.append((name, stamp, text, _hash(name, stamp, text)))
    if lines:
        _ask(lambda database: database.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?)", lines))


def _ask(action: Callable[[sqlite3.Connection], Answer]) -> Answer | None:
    """What an action on the index gives; None where the index cannot serve. A damaged one is made anew."""
    path = cache_directory() / "index.sqlite"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            place = _place(path)
            try:
                with contextlib.closing(_connect(path)) as database, database:
                    return action(database)
            except (sqlite3.Error, ValueError, OverflowError) as error:
                if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _NOT_DAMAGE:
                    return None
                _remove(path, place)
    except OSError:
        pass
    return None


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=30)
    try:
        if database.execute("PRAGMA user_version").fetchone() != (VERSION,):
            database.execute("PRAGMA journal_mode=WAL")
            with database:
                database.execute("DROP TABLE IF EXISTS kept")
                database.execute(_TABLE)
                database.execute(f"PRAGMA user_version={VERSION}")
        database.execute("PRAGMA synchronous=NORMAL")
    except BaseException:
        database.close()
        raise
    return database


def _remove(path: Path, place: int | None) -> None:
    """Take a damaged index away, unless another process did and put a new one into another place of the disk."""
    with path.with_suffix(".lock").open("w") as lock:
        if sys.platform != "win32":
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _place(path) == place:
            for ending in ("", "-wal", "-shm"):
                Path(f"{path}{ending}").unlink(missing_ok=True)


def _place(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


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
    changed = datetime.fromtimestamp(_changed(stamp) / 1e9)
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


def _changed(stamp: str) -> int:
    return int(stamp.partition(" ")[0])


def _name(file: Path) -> str:
    return os.path.abspath(file)


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
