"""What a run yields: the record of every trial, the claims judged on them, and where it all came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuropil.bench.claim import Claim, Verdict
from neuropil.bench.study import Scale

SCHEMA = 1


@dataclass(frozen=True)
class TrialRecord:
    """One finished trial. All values are plain JSON (no NaN: undefined is None)."""

    arm: str
    seed: int
    key: str  # content address: study, arm, config, seed, scale, data checksum, code hash
    config: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    cost: Mapping[str, float]
    curves: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    arrays: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """A claim with its verdict: the mean over seeds of `left - right`, its 95 % interval and every seed."""

    claim: Claim
    verdict: Verdict | None  # None: not judged, because claims are judged at laptop scale only
    value: float | None
    ci_low: float | None
    ci_high: float | None
    differences: tuple[float | None, ...]  # one per seed, in the order of `Result.seeds`
    note: str = ""  # what a reader must know of the interval, such as seeds without a value


@dataclass(frozen=True)
class Failure:
    """A trial that ended without an outcome, and why, in one line."""

    arm: str
    seed: int
    message: str


@dataclass(frozen=True)
class Result:
    """A run of a study, complete without any cache."""

    id: str
    scale: Scale
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    trials: tuple[TrialRecord, ...]
    judgements: tuple[Judgement, ...]
    tuning: Mapping[str, Any] = field(default_factory=dict)  # what `tune` tried and chose
    provenance: Mapping[str, Any] = field(default_factory=dict)  # code and data hashes, machine, versions
    seconds: float = 0.0
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # each arm's settings as run
    overrides: Mapping[str, str] = field(default_factory=dict)  # what `--set` changed
    failures: tuple[Failure, ...] = ()  # trials that ended in an error; empty in a whole run
    directory: Path | None = None  # where the run is stored

    def metric(self, arm: str, name: str) -> list[float | None]:
        """A metric of an arm, one value per seed in the order of `seeds`."""
        by_seed = {trial.seed: trial for trial in self.trials if trial.arm == arm}
        return [by_seed[seed].metrics.get(name) if seed in by_seed else None for seed in self.seeds]
