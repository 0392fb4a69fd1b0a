"""From a study to its trials, and from trials to records: addressed by content, taken from the cache or computed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from neuropil.bench.code import FileHash, part_hashes
from neuropil.bench.executor import Executor, Job, Reply, Step
from neuropil.bench.fields import plain
from neuropil.bench.progress import Event, Kind, Listener, Progress, warn
from neuropil.bench.provenance import version
from neuropil.bench.result import Failure, TrialRecord
from neuropil.bench.store import cached_trial, content_key, read_costs, read_trial, write_costs, write_trial
from neuropil.bench.study import Config, Scale, Split, Study, Trial
from neuropil.errors import CheckpointError

PROTOCOL = 1  # raised when the way in which trials are seeded and isolated changes


class Computed(NamedTuple):
    """What became of a set of trials, by key."""

    records: dict[str, TrialRecord]
    failures: dict[str, Failure]


def jobs_of(
    study: Study,
    configs: Mapping[str, Config],
    seeds: Sequence[int],
    *,
    scale: Scale,
    code: Mapping[str, FileHash],
    data: Mapping[str, str | None],
    evaluate_on: Split = "test",
) -> list[Job]:
    """Trials of every arm and seed, with their content addresses; seeds first, so that each arm is soon met."""
    hashes = part_hashes(code)
    jobs = []
    for seed in seeds:
        for arm, config in configs.items():
            address: dict[str, Any] = {
                "protocol": PROTOCOL,
                "study": study.id,
                "arm": arm,
                "config": plain(config),
                "seed": seed,
                "scale": scale,
                "evaluate_on": evaluate_on,
                "data": data[arm],
                "code": hashes,
                "torch": version("torch"),
            }
            trial = Trial(arm, config, seed, scale, evaluate_on)
            jobs.append(Job(content_key(address), trial, study.trial))
    return jobs


def compute_trials(
    study: Study,
    jobs: Sequence[Job],
    *,
    executor: Executor,
    cached: bool = True,
    known: Mapping[str, TrialRecord] | None = None,
    keep: Callable[[TrialRecord], None] | None = None,
    on_event: Listener | None = None,
    errors: Path | None = None,
) -> Computed:
    """Records of all jobs; each is passed to `keep` at once, whether known, cached or computed.

    `known` are records that need not be looked up, by key. A trial that raises becomes a failure and the others go
    on; its traceback is written into `errors`.
    """
    costs = read_costs(study.id, jobs[0].trial.scale) if jobs else {}
    progress = Progress({job.key: job.trial.arm for job in jobs}, executor.slots, costs)
    collector = _Collector(progress, Computed({}, {}), cached, known or {}, keep, on_event, errors)
    collector.tell("planned")
    waiting = [job for job in jobs if not collector.found(job)]
    # Longest first, so that no straggler is left at the end.
    waiting.sort(key=lambda job: -(progress.cost(job.trial.arm) or 0.0))
    with contextlib.closing(executor.compute_all(waiting)) as steps:
        for step in steps:
            collector.note(step)
    if jobs:
        _remember_costs(study.id, jobs[0].trial.scale, collector.computed.records.values())
    return collector.computed


@dataclass(frozen=True)
class _Collector:
    """Takes in what becomes of trials: stores, counts and tells."""

    progress: Progress
    computed: Computed
    cached: bool
    known: Mapping[str, TrialRecord]
    keep: Callable[[TrialRecord], None] | None
    on_event: Listener | None
    errors: Path | None

    def found(self, job: Job) -> bool:
        """Take the job's record from those known or from the cache, if it is there."""
        record = self.known.get(job.key) or (self._from_cache(job) if self.cached else None)
        if record is None:
            return False
        self._take(record)
        self.progress.end(job.key)
        self.tell("cached", job, seconds=record.cost.get("seconds"), metrics=record.metrics)
        return True

    def note(self, step: Step) -> None:
        """Take in what the workers did."""
        job, reply = step.job, step.reply
        if job is None:
            self.tell("progress")
        elif reply is None:
            self.progress.start(job.key)
            self.tell("started", job)
        elif reply.record is not None:
            if self.cached:
                try:
                    write_trial(cached_trial(job.key), reply.record)
                except OSError as error:
                    warn(f"the trial cache cannot be written: {error}", self.on_event)
            self._take(reply.record)
            self.progress.end(job.key, reply.record.cost["seconds"])
            self.tell("finished", job, seconds=reply.record.cost["seconds"], metrics=reply.record.metrics)
        else:
            self._fail(job, reply)

    def tell(self, kind: Kind, job: Job | None = None, **what: Any) -> None:
        """Pass on what happened."""
        if self.on_event is not None:
            arm, seed = (job.trial.arm, job.trial.seed) if job else (None, None)
            left = self.progress.left()
            self.on_event(Event(kind, self.progress.done, self.progress.total, arm, seed, left=left, **what))

    def _from_cache(self, job: Job) -> TrialRecord | None:
        path = cached_trial(job.key)
        try:
            record = read_trial(path)
        except FileNotFoundError:
            return None
        except CheckpointError as error:
            warn(f"{error}; the trial is computed again", self.on_event)
            return None
        if (record.key, record.arm, record.seed) != (job.key, job.trial.arm, job.trial.seed):
            warn(f"{path}: holds another trial; it is computed again", self.on_event)
            return None
        return record

    def _take(self, record: TrialRecord) -> None:
        self.computed.records[record.key] = record
        if self.keep is not None:
            self.keep(record)

    def _fail(self, job: Job, reply: Reply) -> None:
        trial = job.trial
        self.computed.failures[job.key] = Failure(trial.arm, trial.seed, reply.message)
        if self.errors is not None and reply.trace:
            self.errors.mkdir(parents=True, exist_ok=True)
            (self.errors / f"{trial.arm}-{trial.seed}.txt").write_text(reply.trace, encoding="utf-8")
        self.progress.end(job.key)
        self.tell("failed", job, message=f"arm {trial.arm}, seed {trial.seed}: {reply.message}")


def _remember_costs(name: str, scale: str, records: Iterable[TrialRecord]) -> None:
    seconds: dict[str, list[float]] = {}
    for record in records:
        seconds.setdefault(record.arm, []).append(record.cost["seconds"])
    write_costs(name, scale, {arm: sum(each) / len(each) for arm, each in seconds.items()})
