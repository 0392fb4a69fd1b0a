"""Running a study: plan the trials, compute what is not known yet, judge the claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from neuropil.bench.progress import Listener
from neuropil.bench.result import Result
from neuropil.bench.study import Scale, Study


def run(
    study: Study,
    *,
    scale: Scale = "laptop",
    seeds: Sequence[int] | None = None,
    arms: Sequence[str] | None = None,
    overrides: Mapping[str, str] | None = None,
    jobs: int | None = None,
    out: Path | str | None = None,
    on_event: Listener | None = None,
) -> Result:
    """Run a study; see the module. (being written)"""
    raise NotImplementedError


def resume(
    directory: Path | str,
    *,
    study: Study | None = None,
    jobs: int | None = None,
    on_event: Listener | None = None,
) -> Result:
    """Go on with a run that was stopped. (being written)"""
    raise NotImplementedError
