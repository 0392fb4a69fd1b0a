"""Evidence: what a laptop-scale run showed, kept beside the package, and whether it still stands.

Evidence is *stale* when the code of its study or mechanism changed or its arms were tuned anew, *unverified* when only
code that it shares with others changed; `replay` reruns one seed of each arm and stamps it anew when every metric is
equal.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from neuropil.bench import catalogue
from neuropil.bench.code import FileHash, changed_parts
from neuropil.bench.fields import plain
from neuropil.bench.progress import Listener
from neuropil.bench.provenance import code_of, data_of, machine
from neuropil.bench.result import SCHEMA, Result, TrialRecord
from neuropil.bench.store import read_json, result_from, write_text
from neuropil.bench.study import Study
from neuropil.bench.trials import compute_trials, jobs_of
from neuropil.bench.tune import read_tuning, tuned_configs
from neuropil.bench.workers import Workers, worker_count
from neuropil.errors import CheckpointError, ConfigError

State = Literal["fresh", "stale", "unverified", "missing"]

LARGEST = 300_000  # characters of one file of evidence; arrays that do not fit are left out


class Row(NamedTuple):
    """How the evidence of one system stands, and why."""

    id: str
    state: State
    reason: str


def evidence_file(name: str) -> Path:
    """Where the evidence of a system is kept."""
    return catalogue.results_directory() / f"{name}.json"


def is_evidence(study: Study, result: Result) -> bool:
    """Whether a run may stand as evidence: laptop scale, every arm, the declared seeds, nothing changed or failed."""
    return (
        result.scale == "laptop"
        and result.arms == tuple(study.arms)
        and result.seeds == tuple(study.seed_range)
        and not result.overrides
        and not result.failures
        and any(entry.id == study.id for entry in (*catalogue.entries(), *catalogue.leagues()))
        and catalogue.study_path(study.id).is_file()
    )


def write_evidence(result: Result) -> Path:
    """Write `results/<id>.json`: the result with a summary in its second line, one line per trial.

    Arrays are left out, the largest first and those of later seeds before those of the first, until the file is below
    300 kB. Raises ConfigError when the result has no verdict on its primary claim.
    """
    primary = [each for each in result.judgements if each.claim.primary]
    if len(primary) != 1 or primary[0].verdict is None:
        raise ConfigError(f"{result.id}: evidence needs the verdict of the primary claim, at laptop scale")
    summary = {
        "schema": SCHEMA,
        "id": result.id,
        "verdict": primary[0].verdict,
        "seconds": round(result.seconds, 2),
        "written": datetime.now(UTC).strftime("%Y-%m-%d"),
        "files": result.provenance["files"],
        "choices": result.tuning.get("choices", {}),
    }
    path = evidence_file(result.id)
    write_text(path, _text(summary, result, _fitting(result)))
    return path


def read_evidence(name: str) -> Result:
    """The evidence of a system, as the Result it was.

    Raises CheckpointError when there is none or the file is damaged.
    """
    path = evidence_file(name)
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{name}: no evidence; `neuropil run {name}` makes it") from error
    return result_from(content, path)


def check(names: Sequence[str] | None = None) -> tuple[Row, ...]:
    """How evidence stands, reading only; that of every system that is built or has evidence when no ids are given.

    Raises UnknownNameError for an id that does not exist.
    """
    known = (*catalogue.entries(), *catalogue.leagues())
    if names:
        return tuple(_state(catalogue.find(name).id) for name in names)
    there = [e.id for e in known if catalogue.study_path(e.id).is_file() or evidence_file(e.id).is_file()]
    return tuple(_state(name) for name in there)


def replay(
    name: str, *, study: Study | None = None, jobs: int | None = None, on_event: Listener | None = None
) -> Row:
    """Rerun the first seed of each arm without the cache; equal metrics stamp the evidence anew.

    Evidence that is missing or stale is not replayed: it has to be made with `neuropil run`.
    """
    row = _state(name)
    if row.state in ("missing", "stale"):
        return row
    study = study or catalogue.load_study(name)
    result = read_evidence(name)
    configs = tuned_configs(study, result.tuning)
    for trial in result.trials:
        if trial.arm not in configs or plain(configs[trial.arm]) != trial.config:
            return Row(name, "stale", f"arm {trial.arm}: settings differ from those of the evidence")
    code, data = code_of(study), data_of(study, configs)
    replayed = jobs_of(study, configs, result.seeds[:1], scale="laptop", code=code, data=data)
    executor = Workers(worker_count(jobs))
    computed = compute_trials(study, replayed, executor=executor, cached=False, on_event=on_event)
    for failure in computed.failures.values():
        return Row(name, "unverified", f"arm {failure.arm}, seed {failure.seed}: {failure.message}")
    for record in (computed.records[job.key] for job in replayed):  # not in the order in which they ended
        if difference := _difference(result, record):
            return Row(name, "unverified", difference)
    stamp = {"files": _rows(code), "data": data, "verified": machine()}
    write_evidence(dataclasses.replace(result, provenance={**result.provenance, **stamp}))
    return Row(name, "fresh", f"replayed seed {result.seeds[0]} of {len(configs)} arms, every metric equal")


def _state(name: str) -> Row:
    try:
        summary = catalogue.read_summary(evidence_file(name))
    except CheckpointError as error:
        return Row(name, "missing", str(error))
    if summary is None:
        return Row(name, "missing", f"never run; `neuropil run {name}` makes it")
    files = {file: FileHash(*hashes) for file, hashes in summary["files"].items()}
    changed = changed_parts(files, catalogue.PACKAGE)
    if own := sorted(changed - {"shared"}, reverse=True):
        return Row(name, "stale", f"the {' and the '.join(own)} changed since; run it again")
    if (read_tuning(name) or {}).get("choices", {}) != summary.get("choices", {}):
        return Row(name, "stale", "the arms were tuned anew since; run it again")
    if changed:
        return Row(name, "unverified", "shared code changed since; `neuropil check --replay` verifies it")
    return Row(name, "fresh", "")


def _difference(result: Result, record: TrialRecord) -> str:
    """The first metric that a replayed trial does not share with the evidence, in one line."""
    for trial in result.trials:
        if (trial.arm, trial.seed) == (record.arm, record.seed):
            for name in sorted({*trial.metrics, *record.metrics}):
                before, now = trial.metrics.get(name), record.metrics.get(name)
                if before != now:
                    return f"arm {trial.arm}, seed {trial.seed}: {name} was {before}, is {now}"
            return ""
    return f"arm {record.arm}, seed {record.seed}: not in the evidence"


def _rows(code: dict[str, FileHash]) -> dict[str, list[str]]:
    return {name: list(hashes) for name, hashes in code.items()}


def _fitting(result: Result) -> list[dict[str, Any]]:
    """The trials' content, with arrays left out until it fits."""
    trials = [dataclasses.asdict(trial) for trial in result.trials]
    sizes = sorted(
        (trial["seed"] == result.seeds[0], -len(json.dumps(array)), index, name)
        for index, trial in enumerate(trials)
        for name, array in trial["arrays"].items()
    )
    size = len(json.dumps(trials))
    for _, negative, index, name in sizes:
        if size <= LARGEST:
            break
        del trials[index]["arrays"][name]
        size += negative
    return trials


def _text(summary: dict[str, Any], result: Result, trials: list[dict[str, Any]]) -> str:
    content = {
        "schema": SCHEMA,
        "id": result.id,
        "scale": result.scale,
        "seeds": result.seeds,
        "arms": result.arms,
        "seconds": result.seconds,
        "configs": result.configs,
        "judgements": [dataclasses.asdict(each) for each in result.judgements],
        "tuning": result.tuning,
        "provenance": result.provenance,
    }
    lines = [f'"summary": {json.dumps(summary, allow_nan=False)}']
    lines += [f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in content.items()]
    rows = ",\n".join(json.dumps(trial, allow_nan=False) for trial in trials)
    return "{\n" + ",\n".join(lines) + f',\n"trials": [\n{rows}\n]\n}}\n'
