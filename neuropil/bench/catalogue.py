"""What systems there are, where their files lie, and how they stand. Answers without importing torch."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from neuropil.bench.claim import Verdict
from neuropil.bench.code import FileHash, changed_parts
from neuropil.bench.study import Study
from neuropil.errors import CheckpointError, ConfigError, UnknownNameError, nearest

PACKAGE = Path(__file__).resolve().parents[1]


class Entry(NamedTuple):
    """A catalogued system, or a league: a study that compares systems of several rooms (`year` is None)."""

    id: str
    room: str
    title: str
    year: int | None


class Status(NamedTuple):
    """How a system stands: `done` once evidence exists that is not stale."""

    state: Literal["done", "planned"]
    verdict: Verdict | None  # of the primary claim
    seconds: float | None  # what its laptop-scale run took


@lru_cache
def entries() -> tuple[Entry, ...]:
    """Catalogued systems in the order of the catalogue.

    >>> entries()[0].id
    'hlop'
    """
    rows = json.loads((PACKAGE / "catalogue.json").read_text(encoding="utf-8"))
    return tuple(Entry(row["id"], row["room"], row["title"], row["year"]) for row in rows)


def leagues() -> tuple[Entry, ...]:
    """Studies without a catalogue entry, by id; the title is the first line of the file."""
    known = {entry.id for entry in entries()}
    found = []
    for path in sorted((PACKAGE / "studies").glob("*/[!_]*.py")):
        name = path.stem.replace("_", "-")
        if name not in known:
            text = ast.get_docstring(ast.parse(path.read_bytes())) or name
            found.append(Entry(name, path.parent.name, text.splitlines()[0], None))
    return tuple(found)


def find(name: str) -> Entry:
    """The system or league of that id; UnknownNameError when there is none."""
    for entry in (*entries(), *leagues()):
        if entry.id == name:
            return entry
    raise UnknownNameError(f"unknown id {name!r}{nearest(name, (e.id for e in (*entries(), *leagues())))}")


def study_path(name: str) -> Path:
    """Where the study of a system is, or would be."""
    return _place(PACKAGE / "studies", find(name))


def mechanism_path(name: str) -> Path:
    """Where the mechanism of a system is, or would be; a league has none."""
    return _place(PACKAGE, find(name))


def results_directory() -> Path:
    """Where evidence lies: `results/` beside the package in a checkout, inside the package when installed."""
    beside = PACKAGE.parent / "results"
    return beside if (PACKAGE.parent / "pyproject.toml").is_file() else PACKAGE / "results"


def load_study(name: str) -> Study:
    """Import the study of a system.

    What the run showed, and why a claim fails, stands in the study file's docstring below its first line: words about
    a result leave the evidence fresh. It comes before the study's own notes.

    Raises UnknownNameError for an id that is not catalogued, or is catalogued and not built yet.
    """
    entry = find(name)
    path = study_path(name)
    if not path.is_file():
        raise UnknownNameError(f"{name}: planned, not built yet; `neuropil list` shows what there is")
    module = importlib.import_module(f"neuropil.studies.{entry.room}.{path.stem}")
    study = getattr(module, "study", None)
    if not isinstance(study, Study) or study.id != name:
        raise ConfigError(f"{path.name}: must define `study`, a Study with id {name!r}")
    found = inspect.cleandoc(module.__doc__ or "").partition("\n\n")[2]
    parts = [part for part in (found, study.notes) if part]
    return replace(study, notes="\n\n".join(dict.fromkeys(parts)))


def status(entry: Entry) -> Status:
    """How a system stands; reads a line of its evidence and hashes two files."""
    planned = Status("planned", None, None)
    try:
        summary = read_summary(results_directory() / f"{entry.id}.json")
    except CheckpointError:
        return planned
    if summary is None or is_stale(summary):
        return planned
    return Status("done", summary["verdict"], summary["seconds"])


def is_stale(summary: dict[str, Any]) -> bool:
    """Whether the code of study or mechanism, comments apart, changed since the evidence was written."""
    files = {name: FileHash(*hashes) for name, hashes in summary["files"].items()}
    own = {name: hashes for name, hashes in files.items() if hashes.part != "shared"}
    return bool(changed_parts(own, PACKAGE))


def read_summary(path: Path) -> dict[str, Any] | None:
    """The summary in the second line of evidence; None without evidence, CheckpointError when damaged."""
    try:
        with path.open(encoding="utf-8") as file:
            file.readline()
            line = file.readline().strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    try:
        summary = json.loads("{" + line.rstrip(",") + "}")["summary"]
        if summary["schema"] == 1 and {"verdict", "seconds", "files"} <= set(summary):
            return dict(summary)
    except (ValueError, KeyError, TypeError):
        pass
    raise CheckpointError(f"{path}: not evidence of schema 1; write it anew with `neuropil run {path.stem}`")


def _place(parent: Path, entry: Entry) -> Path:
    return parent / entry.room / f"{entry.id.replace('-', '_')}.py"
