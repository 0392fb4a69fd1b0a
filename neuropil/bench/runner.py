"""Running a study: plan the trials, compute what is not known yet, judge the claims, keep everything."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, get_args

from neuropil.bench import catalogue
from neuropil.bench.evidence import is_evidence, write_evidence
from neuropil.bench.executor import Executor, Job
from neuropil.bench.fields import override_arms, plain
from neuropil.bench.index import remember
from neuropil.bench.places import LOCAL, check_place, place
from neuropil.bench.progress import Listener, warn
from neuropil.bench.provenance import code_of, data_of, machine
from neuropil.bench.result import Result, TrialRecord
from neuropil.bench.statistics import judge_all, student_quantile
from neuropil.bench.store import held, read_plan, read_trial, trial_file, write_run, write_trial
from neuropil.bench.study import Config, Scale, Study
from neuropil.bench.trials import compute_trials, jobs_of
from neuropil.bench.tune import DEVELOPMENT, read_tuning, tuned_configs
from neuropil.errors import CheckpointError, ConfigError, UnknownNameError, nearest


def run(
    study: Study,
    *,
    scale: Scale = "laptop",
    seeds: Sequence[int] | None = None,
    arms: Sequence[str] | None = None,
    overrides: Mapping[str, str] | None = None,
    jobs: int | None = None,
    on: str = LOCAL,
    out: Path | str | None = None,
    on_event: Listener | None = None,
) -> Result:
    """Run a study: every arm on every seed, each trial on one thread, `jobs` of them side by side.

    Settings are the arms' defaults, then what `tune` chose, then the scale's, then `overrides` (`field` or
    `arm.field` to text). Seeds default to the study's (one at smoke scale). Finished trials are kept at once in the
    cache and in `out` (default: a new directory under `runs`), so that `resume` goes on after any interruption. A
    trial that raises is told in `Result.failures`; the others go on. With `jobs=0` trials run in this process, for
    debugging; the default is one worker per core. `on` is `local`, `ray` or the address of a Ray cluster
    (`ray://host:port`): the same trials, with the same bits, under the same keys.

    A laptop-scale run of all arms on the declared seeds without overrides becomes evidence in `results/`.

    Raises UnknownNameError for an arm, ConfigError for settings, seeds (10000 and up are for tuning) or a directory
    in use, and KeyboardInterrupt or SystemExit(143) after stopping the workers.
    """
    if scale not in get_args(Scale):
        raise ConfigError(
            f"scale: expected smoke, laptop or paper, got {scale!r}{nearest(scale, get_args(Scale))}"
        )
    tuning = read_tuning(study.id) or {}
    chosen = _arms(study, arms)
    plan = Result(
        id=study.id,
        scale=scale,
        seeds=_seeds(study, scale, seeds),
        arms=chosen,
        trials=(),
        judgements=(),
        tuning=tuning,
        overrides={str(name): str(value) for name, value in (overrides or {}).items()},
    )
    configs = _configs(study, plan)
    check_place(on)
    student_quantile(0.975, 1)  # a missing library is told before the work, not after
    directory = Path(out) if out is not None else _new_directory(plan)
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory}: is a file; expected a directory for the run")
    if (directory / "run.json").exists():
        raise ConfigError(f"{directory}: holds a run already; `neuropil resume {directory}` goes on with it")
    plan = dataclasses.replace(plan, directory=directory)
    with place(on, jobs) as executor, held(directory):
        return _go_on(study, plan, configs, executor, on_event)


def resume(
    directory: Path | str,
    *,
    study: Study | None = None,
    jobs: int | None = None,
    on: str = LOCAL,
    on_event: Listener | None = None,
) -> Result:
    """Go on with a run that was stopped, from the trials that its directory and the cache hold.

    Trial files that are damaged, or of other code or data than now, are computed again, with a warning. The study is
    found by the run's id unless it is given. Raises CheckpointError when the directory holds no run or
    another process is at work on it.
    """
    plan = read_plan(Path(directory))
    study = study or catalogue.load_study(plan.id)
    for arm in plan.arms:
        if arm not in study.arms:
            raise CheckpointError(f"{directory}: arm {arm!r} is no longer in study {study.id}")
    configs = _configs(study, plan)
    with place(on, jobs) as executor, held(Path(directory)):
        return _go_on(study, plan, configs, executor, on_event)


def _go_on(
    study: Study, plan: Result, configs: Mapping[str, Config], executor: Executor, on_event: Listener | None
) -> Result:
    """Compute what the directory lacks, judge and store."""
    directory = plan.directory or Path()
    began = time.monotonic()
    code, data = code_of(study), data_of(study, configs)
    provenance: dict[str, Any] = {
        "files": {name: list(hashes) for name, hashes in code.items()},
        "data": data,
        "machine": machine(),
    }
    plan = dataclasses.replace(
        plan, provenance=provenance, configs={arm: plain(config) for arm, config in configs.items()}
    )
    jobs = jobs_of(study, configs, plan.seeds, scale=plan.scale, code=code, data=data)
    for job in jobs:
        trial_file(directory, job.trial.arm, job.trial.seed)  # names unfit for files are told before the work
    write_run(directory, dataclasses.replace(plan, judgements=(), failures=()))
    kept = {job.key: record for job in jobs if (record := _kept(directory, job, on_event))}

    def keep(record: TrialRecord) -> None:
        if record.key not in kept:
            write_trial(trial_file(directory, record.arm, record.seed), record)
            (directory / "errors" / f"{record.arm}-{record.seed}.txt").unlink(missing_ok=True)

    with _terminable():
        computed = compute_trials(
            study,
            jobs,
            executor=executor,
            known=kept,
            keep=keep,
            on_event=on_event,
            errors=directory / "errors",
        )
    order = {arm: index for index, arm in enumerate(plan.arms)}
    records = sorted(computed.records.values(), key=lambda r: (order[r.arm], plan.seeds.index(r.seed)))
    side_by_side = max(1, min(executor.slots, len(jobs)))
    result = dataclasses.replace(
        plan,
        trials=tuple(records),
        failures=tuple(computed.failures.values()),
        # What was cached cost time too: the run is said to take what its trials took.
        seconds=round(
            max(time.monotonic() - began, sum(r.cost["seconds"] for r in records) / side_by_side), 3
        ),
    )
    result = dataclasses.replace(result, judgements=judge_all(study, result))
    write_run(directory, result)
    remember(result)
    if is_evidence(study, result):
        try:
            write_evidence(result)
        except OSError as error:
            warn(f"evidence is not written: {error}", on_event)
    return result


def _kept(directory: Path, job: Job, on_event: Listener | None) -> TrialRecord | None:
    """The job's record from the run's own directory, if it is there and sound."""
    path = trial_file(directory, job.trial.arm, job.trial.seed)
    try:
        record = read_trial(path)
    except FileNotFoundError:
        return None
    except CheckpointError as error:
        warn(f"{error}; the trial is computed again", on_event)
        return None
    if record.key != job.key:
        warn(f"{path}: code, data or settings changed since; the trial is computed again", on_event)
        return None
    return record


def _configs(study: Study, plan: Result) -> dict[str, Config]:
    """Settings of the plan's arms: defaults, tuned choices, the scale's, overrides."""
    configs = tuned_configs(study, plan.tuning)
    configs = override_arms(configs, study.scales.get(plan.scale, {}))
    # Overrides are laid over all arms, so that one that only an arm left out has is no mistake.
    configs = override_arms(configs, plan.overrides)
    return {arm: configs[arm] for arm in plan.arms}


def _arms(study: Study, arms: Sequence[str] | None) -> tuple[str, ...]:
    if arms is None:
        return tuple(study.arms)
    for arm in arms:
        if arm not in study.arms:
            raise UnknownNameError(f"study {study.id}: unknown arm {arm!r}{nearest(arm, study.arms)}")
    if not arms:
        raise ConfigError(f"arms: expected at least one of {', '.join(study.arms)}")
    return tuple(arm for arm in study.arms if arm in arms)


def _seeds(study: Study, scale: Scale, seeds: Sequence[int] | None) -> tuple[int, ...]:
    if seeds is None:
        return tuple(study.seed_range[:1] if scale == "smoke" else study.seed_range)
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ConfigError(f"seeds: expected integers from 0 to {DEVELOPMENT - 1}, got {seed!r}")
        if seed >= DEVELOPMENT:
            raise ConfigError(
                f"seeds: {seed} is a development seed, for `neuropil tune`; use 0 to {DEVELOPMENT - 1}"
            )
    if not seeds:
        raise ConfigError("seeds: expected at least one")
    return tuple(dict.fromkeys(seeds))


def _new_directory(plan: Result) -> Path:
    name = f"{plan.id}-{plan.scale}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
    tries = (Path("runs") / (f"{name}-{n}" if n else name) for n in range(1000))
    return next(path for path in tries if not path.exists())


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into SystemExit(143), so that workers are stopped on the way out; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
