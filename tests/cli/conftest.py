"""A small bench for the command line, and a way to call the command."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from neuropil.bench import fields, runner, store
from neuropil.bench.result import Failure, Judgement, Result, TrialRecord
from neuropil.bench.study import Study, Trial
from neuropil.cli.main import main
from neuropil.errors import NonFiniteError, UnknownNameError
from tests.cli.studies import install


class Answer(NamedTuple):
    """What a call of the command gave back."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on stdout; fails when there is anything else or anything not finite."""
        return json.loads(self.out, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))

    @property
    def lines(self) -> list[str]:
        """Lines on stderr that are not blank."""
        return [line for line in self.err.splitlines() if line.strip()]


Call = Callable[..., Answer]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """Calls the command in this process."""

    def call(*words: str) -> Answer:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main(words)
        return Answer(int(left.value.code or 0), *capfd.readouterr())

    return call


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Puts the two studies in place of the real ones, results and cache in a fresh place; gives that place."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path / "cache"))
    install(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def runs(bench: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Lets trials run in this process, without workers; gives what each run was asked for."""
    asked: list[dict[str, Any]] = []

    def run(study: Study, **what: Any) -> Result:
        asked.append({"study": study.id, **what})
        if unknown := set(what["arms"] or ()) - set(study.arms):
            raise UnknownNameError(f"unknown arm {unknown.pop()!r}")
        arms = tuple(arm for arm in study.arms if arm in (what["arms"] or study.arms))
        seeds = tuple(range(study.seeds)) if what["seeds"] is None else what["seeds"]
        configs = fields.override_arms(study.arms, what["overrides"])
        trials, failures = [], []
        for arm, seed in itertools.product(arms, seeds):
            try:
                outcome = study.trial(Trial(arm, configs[arm], seed, what["scale"]))
            except NonFiniteError as error:
                failures.append(Failure(arm, seed, str(error)))
            else:
                trials.append(TrialRecord(arm, seed, "key", {}, outcome.metrics, outcome.cost))
        claim = study.claims[0]
        judged = Judgement(claim, "holds", 0.4, float("nan"), 0.5, (0.4,) * len(seeds))
        result = Result(
            study.id,
            what["scale"],
            seeds,
            arms,
            tuple(trials),
            (judged,) if claim.arms <= set(arms) else (),
            seconds=1.5,
            configs={arm: dataclasses.asdict(configs[arm]) for arm in arms},
            overrides=what["overrides"],
            failures=tuple(failures),
        )
        what["out"].mkdir(exist_ok=True)
        store.write_run(what["out"], dataclasses.replace(result, judgements=()))
        for record in trials:
            store.write_trial(store.trial_file(what["out"], record.arm, record.seed), record)
        return result

    monkeypatch.setattr(runner, "run", run)
    return asked
