"""Trials and runs on disk: the content-addressed cache, run directories, durable writes.

Everything is JSON without NaN. A file appears whole or not at all: it is written beside its place, synced,
renamed, and the directory is synced. Trials and runs carry a hash of their content, so that damage is told.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from neuropil.bench.claim import Claim
from neuropil.bench.result import SCHEMA, Failure, Judgement, Result, TrialRecord
from neuropil.errors import CheckpointError, ConfigError

if sys.platform != "win32":
    import fcntl

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def cache_directory() -> Path:
    """Where finished trials are kept: `NEUROPIL_CACHE`, or `neuropil` in the user's cache directory."""
    if moved := os.environ.get("NEUROPIL_CACHE"):
        return Path(moved).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "neuropil"


def canonical(value: Any) -> str:
    """JSON text that equal values share: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_key(value: Any) -> str:
    """Content address of a JSON value.

    >>> content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file durably, see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file durably: after a crash at any instant it holds the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:  # with the permissions that the user's umask gives
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(path.parent)


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises CheckpointError in one line when it is damaged; NaN is damage."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable JSON ({str(error).splitlines()[0]})") from error


def cached_trial(key: str) -> Path:
    """Where the cache keeps the trial of a content address."""
    return cache_directory() / "trials" / key[:2] / f"{key}.json"


def write_trial(path: Path, record: TrialRecord) -> None:
    """Store a trial durably, with a hash of its content."""
    content = dataclasses.asdict(record)
    write_text(path, canonical({"schema": SCHEMA, "sha256": content_key(content), "trial": content}) + "\n")


def read_trial(path: Path) -> TrialRecord:
    """A stored trial. Raises FileNotFoundError, or CheckpointError in one line when the file is damaged."""
    stored = read_json(path)
    if not isinstance(stored, dict) or set(stored) != {"schema", "sha256", "trial"}:
        raise CheckpointError(f"{path}: not a trial (expected schema, sha256 and trial)")
    if stored["schema"] != SCHEMA:
        raise CheckpointError(f"{path}: schema is {stored['schema']!r} (expected {SCHEMA})")
    _check_hash(stored["trial"], stored["sha256"], path)
    return trial_from(stored["trial"], path)


def trial_from(content: Any, path: Path) -> TrialRecord:
    """A trial from its JSON content; `path` is named when it does not fit."""
    try:
        return TrialRecord(**content)
    except TypeError as error:
        raise CheckpointError(f"{path}: not a trial of schema {SCHEMA} ({error})") from error


def trial_file(directory: Path, arm: str, seed: int) -> Path:
    """Where a run keeps a trial. Raises ConfigError for an arm whose name is not fit for a file."""
    if not _NAME.fullmatch(arm):
        raise ConfigError(f"arm {arm!r}: a name has letters, digits, - and _ only, at most 64")
    return directory / "trials" / f"{arm}-{seed}.json"


def write_run(directory: Path, result: Result) -> None:
    """Store a run without its trials, which have files of their own."""
    content = {
        field.name: getattr(result, field.name)
        for field in dataclasses.fields(result)
        if field.name not in ("trials", "judgements", "failures", "directory")
    }
    content["judgements"] = [dataclasses.asdict(judgement) for judgement in result.judgements]
    content["failures"] = [dataclasses.asdict(failure) for failure in result.failures]
    content = {"schema": SCHEMA, **content}
    text = json.dumps({**content, "sha256": content_key(content)}, indent=1, allow_nan=False)
    write_text(directory / "run.json", text + "\n")


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold a run directory, which is made if need be, against other processes; the system lets go for the dead.

    Raises CheckpointError when another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CheckpointError(f"{directory}: another process is at work on this run") from error
        for left in (*directory.glob(".*.json.*.tmp"), *directory.glob("trials/.*.json.*.tmp")):
            left.unlink(missing_ok=True)  # of a writer that was killed: nobody else writes here now
        yield
    finally:
        os.close(handle)


def read_run(directory: Path | str) -> Result:
    """The run stored in a directory, finished or not; an unfinished one has no judgements.

    Raises CheckpointError in one line when there is no run, or a file of it is damaged.
    """
    directory = Path(directory)
    result = read_plan(directory)
    trials = []
    for arm in result.arms:
        for seed in result.seeds:
            with contextlib.suppress(FileNotFoundError):
                trials.append(read_trial(trial_file(directory, arm, seed)))
    return dataclasses.replace(result, trials=tuple(trials))


def read_plan(directory: Path) -> Result:
    """What a directory's run is of, without its trials."""
    path = directory / "run.json"
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{directory}: no run here (run.json is missing)") from error
    if isinstance(content, dict):
        _check_hash(content, content.pop("sha256", None), path)
    return dataclasses.replace(result_from(content, path), directory=directory)


def result_from(content: Any, path: Path) -> Result:
    """A Result from its JSON content; `path` is named when it does not fit."""
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise CheckpointError(f"{path}: schema is {found!r} (expected {SCHEMA})")
    known = {field.name for field in dataclasses.fields(Result)}
    try:
        values: dict[str, Any] = {name: value for name, value in content.items() if name in known}
        values["trials"] = tuple(trial_from(trial, path) for trial in values.get("trials", ()))
        values["judgements"] = tuple(_judgement(each) for each in values["judgements"])
        values["failures"] = tuple(Failure(**each) for each in values.get("failures", ()))
        values["seeds"] = tuple(int(seed) for seed in values["seeds"])
        values["arms"] = tuple(str(arm) for arm in values["arms"])
        return Result(**values)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a run of schema {SCHEMA} ({error})") from error


def read_costs(name: str, scale: str) -> dict[str, float]:
    """Seconds that a trial of each arm took last time, as far as known."""
    try:
        costs = read_json(_costs_file(name, scale))
        return {str(arm): float(seconds) for arm, seconds in costs.items()}
    except (OSError, CheckpointError, AttributeError, TypeError, ValueError):
        return {}


def write_costs(name: str, scale: str, costs: Mapping[str, float]) -> None:
    """Remember what trials cost; an estimate only, so a cache that cannot be written is no error."""
    with contextlib.suppress(OSError):
        write_text(_costs_file(name, scale), canonical({**read_costs(name, scale), **costs}) + "\n")


def _costs_file(name: str, scale: str) -> Path:
    return cache_directory() / "costs" / f"{name}-{scale}.json"


def _judgement(content: Mapping[str, Any]) -> Judgement:
    values = {**content, "claim": Claim(**content["claim"]), "differences": tuple(content["differences"])}
    return Judgement(**values)


def _check_hash(content: Any, digest: Any, path: Path) -> None:
    try:
        whole = content_key(content) == digest
    except ValueError:  # a number too large for one, half a character: nothing that was ever written
        whole = False
    if not whole:
        raise CheckpointError(f"{path}: content was altered (its hash differs from the stored one)")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _sync_directory(directory: Path) -> None:
    if sys.platform == "win32":
        return  # a directory cannot be opened there; the rename itself is durable enough
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
