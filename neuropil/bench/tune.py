"""Choosing each arm's settings on development seeds against validation data, the same budget for every arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuropil.bench.progress import Listener
from neuropil.bench.study import Config, Study


def tune(
    study: Study,
    *,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] = (10000, 10001),
    jobs: int | None = None,
    on_event: Listener | None = None,
) -> Mapping[str, Any]:
    """Choose settings. Keys: id, objective, seeds, budget, choices {arm: {field: value}}, trials, code. (being written)"""
    raise NotImplementedError


def tuned_config(study: Study, arm: str) -> Config:
    """An arm's settings with the tuned choice laid over its defaults. (being written)"""
    raise NotImplementedError
