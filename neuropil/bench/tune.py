"""Choosing each arm's settings: development seeds, validation data, the same budget for every arm."""

from __future__ import annotations

import itertools
import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuropil.bench import catalogue
from neuropil.bench.code import FileHash, part_hashes
from neuropil.bench.executor import Job
from neuropil.bench.fields import override, plain
from neuropil.bench.places import LOCAL, place
from neuropil.bench.progress import Listener
from neuropil.bench.provenance import code_of, data_of, machine
from neuropil.bench.result import SCHEMA, TrialRecord
from neuropil.bench.store import read_json, write_text
from neuropil.bench.study import Config, Study
from neuropil.bench.trials import compute_trials, jobs_of
from neuropil.errors import CheckpointError, ConfigError, NeuropilError, UnknownNameError, nearest

DEVELOPMENT = 10000  # seeds from here on are for choosing settings, those below for judging claims
MOST_VALUES = 4  # of one field in a search space

Settings = dict[str, Any]


def tune(
    study: Study,
    *,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] = (DEVELOPMENT, DEVELOPMENT + 1),
    jobs: int | None = None,
    on: str = LOCAL,
    on_event: Listener | None = None,
) -> Mapping[str, Any]:
    """Choose each arm's settings and write the choice with all its trials into `results/tuning/<id>.json`.

    From the grid of `study.search[arm]`, `study.tune_trials` settings are drawn, always with the declared defaults; a
    smaller grid is tried whole. They are judged by the mean of `study.objective` on validation data over the seeds;
    of equal ones the first is chosen. An arm without a search space keeps its settings, and arms left out keep what
    was chosen for them before.

    Returns what is written: `id`, `objective`, `seeds`, `budget` (settings per arm), `choices` (arm: field: value),
    `trials` (arm, settings, objective per seed, mean), `code`, `data`, `machine`, `seconds`. Raises ConfigError for
    seeds below 10000 or a bad search space, NeuropilError when no setting of an arm could be tried.
    """
    began = time.monotonic()
    chosen_arms = _searched(study, arms)
    seeds = list(dict.fromkeys(int(seed) for seed in seeds))
    if not seeds or min(seeds) < DEVELOPMENT:
        raise ConfigError(f"tuning seeds: expected integers of at least {DEVELOPMENT}, got {seeds}")
    tried = {arm: settings_of(study, arm) for arm in chosen_arms}
    code = code_of(study)
    plan, data = _planned(study, tried, seeds, code)
    with place(on, jobs) as executor:
        every = list(itertools.chain(*plan.values()))
        computed = compute_trials(study, every, executor=executor, on_event=on_event)
    trials = [
        _row(arm, tried[arm][index], study.objective, [computed.records.get(job.key) for job in cells])
        for (arm, index), cells in plan.items()
    ]
    for failure in computed.failures.values():
        if all(row["mean"] is None for row in trials if row["arm"] == failure.arm):
            raise NeuropilError(f"tuning arm {failure.arm}: no setting could be tried ({failure.message})")
    choices = {
        arm: _best([row for row in trials if row["arm"] == arm], study.objective) for arm in chosen_arms
    }
    before = read_tuning(study.id) or {"choices": {}, "trials": []}
    kept = [row for row in before["trials"] if row["arm"] in study.arms and row["arm"] not in chosen_arms]
    tuning = {
        "schema": SCHEMA,
        "id": study.id,
        "objective": study.objective,
        "seeds": seeds,
        "budget": before.get("budget", {}) | {arm: len(settings) for arm, settings in tried.items()},
        "choices": {arm: c for arm, c in before["choices"].items() if arm in study.arms} | choices,
        "trials": kept + trials,
        "code": part_hashes(code),
        "data": data,
        "machine": machine(),
        "seconds": round(time.monotonic() - began, 2),
    }
    write_tuning(tuning)
    return tuning


def settings_of(study: Study, arm: str) -> list[Settings]:
    """Settings that tuning tries on an arm: the declared ones first, then a seeded draw from the grid.

    Raises ConfigError for a search space that names an unknown field, a bad value or more than four values.
    """
    space = study.search[arm]
    declared = {name: plain(study.arms[arm]).get(name) for name in space}
    for name, values in space.items():
        if not 1 <= len(values) <= MOST_VALUES:
            raise ConfigError(f"search.{arm}.{name}: expected 1 to {MOST_VALUES} values, got {len(values)}")
    grid = []
    for point in itertools.product(*space.values()):
        settings = plain(override(study.arms[arm], dict(zip(space, point, strict=True))))
        grid.append({name: settings[name] for name in space})
    others = [point for index, point in enumerate(grid) if point != declared and point not in grid[:index]]
    drawn = random.Random(f"{study.id} {arm}").sample(others, min(study.tune_trials - 1, len(others)))
    return [declared, *drawn]


def tuned_config(study: Study, arm: str) -> Config:
    """An arm's settings with the tuned choice laid over its defaults.

    Raises UnknownNameError for an arm that is not declared, ConfigError when the choice no longer fits.
    """
    if arm not in study.arms:
        raise UnknownNameError(f"study {study.id}: unknown arm {arm!r}{nearest(arm, study.arms)}")
    return tuned_configs(study, read_tuning(study.id))[arm]


def tuned_configs(study: Study, tuning: Mapping[str, Any] | None) -> dict[str, Config]:
    """Settings of all arms with the choices of a tuning laid over them."""
    configs = dict(study.arms)
    for arm, choice in (tuning or {}).get("choices", {}).items():
        if arm in configs:
            try:
                configs[arm] = override(configs[arm], choice)
            except ConfigError as error:
                raise ConfigError(
                    f"{study.id}: the tuned settings of arm {arm} no longer fit ({error}); "
                    f"run `neuropil tune {study.id}`"
                ) from error
    return configs


def tuning_file(name: str) -> Path:
    """Where the tuning of a study is kept."""
    return catalogue.results_directory() / "tuning" / f"{name}.json"


def read_tuning(name: str) -> dict[str, Any] | None:
    """The tuning of a study, None when it was never tuned. Raises CheckpointError when the file is damaged."""
    path = tuning_file(name)
    try:
        tuning = read_json(path)
    except FileNotFoundError:
        return None
    if not isinstance(tuning, dict) or tuning.get("schema") != SCHEMA or "choices" not in tuning:
        raise CheckpointError(f"{path}: not a tuning of schema {SCHEMA}; run `neuropil tune {name}`")
    return tuning


def write_tuning(tuning: Mapping[str, Any]) -> None:
    """Keep a tuning."""
    write_text(tuning_file(tuning["id"]), _text(tuning))


def _searched(study: Study, arms: Sequence[str] | None) -> list[str]:
    for arm in (*study.search, *(arms or ())):
        if arm not in study.arms:
            raise UnknownNameError(f"study {study.id}: unknown arm {arm!r}{nearest(arm, study.arms)}")
    searched = [arm for arm in (arms or study.arms) if study.search.get(arm)]
    if not searched:
        raise ConfigError(f"study {study.id}: nothing to tune, no arm asked for has a search space")
    return searched


def _planned(
    study: Study, tried: Mapping[str, Sequence[Settings]], seeds: Sequence[int], code: Mapping[str, FileHash]
) -> tuple[dict[tuple[str, int], list[Job]], dict[str, str | None]]:
    """Trials of each arm's settings, by arm and position, and the data that the arms read."""
    plan: dict[tuple[str, int], list[Job]] = {}
    data: dict[str, str | None] = {}
    for arm, settings in tried.items():
        for index, each in enumerate(settings):
            config = {arm: override(study.arms[arm], each)}
            data |= data_of(study, config)
            plan[arm, index] = jobs_of(
                study, config, seeds, scale="laptop", code=code, data=data, evaluate_on="validation"
            )
    return plan, data


def _row(
    arm: str, settings: Settings, objective: str, records: Sequence[TrialRecord | None]
) -> dict[str, Any]:
    values = [record.metrics.get(objective) if record else None for record in records]
    defined = [value for value in values if value is not None]
    whole = len(defined) == len(values)
    return {
        "arm": arm,
        "settings": settings,
        "objective": values,
        "mean": math.fsum(defined) / len(defined) if whole else None,
    }


def _best(rows: Sequence[Mapping[str, Any]], objective: str) -> Settings:
    defined = [row for row in rows if row["mean"] is not None]
    if not defined:
        raise ConfigError(f"tuning arm {rows[0]['arm']}: no trial gave the objective {objective!r}")
    return dict(max(defined, key=lambda row: row["mean"])["settings"])


def _text(tuning: Mapping[str, Any]) -> str:
    """Readable JSON: one line per key, one line per trial."""
    lines = []
    for key, value in tuning.items():
        if key == "trials":
            rows = ",\n".join("  " + json.dumps(row, allow_nan=False) for row in value)
            lines.append(f' "trials": [\n{rows}\n ]')
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value, allow_nan=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
