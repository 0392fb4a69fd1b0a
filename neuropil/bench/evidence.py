"""Evidence: what a laptop-scale run showed, kept beside the package, and whether it still stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from neuropil.bench.progress import Listener
from neuropil.bench.result import Result
from neuropil.bench.study import Study

State = Literal["fresh", "stale", "unverified", "missing"]


class Row(NamedTuple):
    """How the evidence of one system stands, and why."""

    id: str
    state: State
    reason: str


def write_evidence(result: Result) -> Path:
    """Write `results/<id>.json`. (being written)"""
    raise NotImplementedError


def read_evidence(name: str) -> Result:
    """The evidence of a system as the Result it was. (being written)"""
    raise NotImplementedError


def check(names: Sequence[str] | None = None) -> tuple[Row, ...]:
    """How evidence stands, reading only; all built systems when no ids are given. (being written)"""
    raise NotImplementedError


def replay(
    name: str, *, study: Study | None = None, jobs: int | None = None, on_event: Listener | None = None
) -> Row:
    """Rerun one seed of each arm; equal metrics stamp the evidence anew. (being written)"""
    raise NotImplementedError
