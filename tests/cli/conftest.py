"""A small bench for the command line: two studies whose trials are sums, and a way to call the command."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from neuropil.bench import catalogue, fields, runner, store
from neuropil.bench.catalogue import Entry
from neuropil.bench.claim import exceeds
from neuropil.bench.result import Failure, Judgement, Result, TrialRecord
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.cli.main import main


@dataclasses.dataclass(frozen=True)
class Settings(Config):
    """Settings of every arm."""

    lr: float = setting(0.1, "learning rate", low=0.0, high=1.0)
    stream: str = setting("permuted", "what is learned", choices=("permuted", "split"))
    tasks: int = setting(3, "tasks in the stream", low=1, high=100)


LEVEL = {"alpha": 0.9, "finetune": 0.5, "beta": 0.8, "slow": 0.7}


def trial(cell: Trial) -> Outcome:
    """Accuracy that depends on arm and seed alone; `bwt` is undefined for one task."""
    if cell.config.lr == 0.75:
        raise FloatingPointError("loss is not finite\nat step 3")
    bwt = None if cell.config.tasks == 1 else -0.01 * cell.config.tasks
    return Outcome({"acc": LEVEL[cell.arm] + 0.01 * (cell.seed % 3), "bwt": bwt}, {"seconds": 0.25})


def study(name: str, *arms: str) -> Study:
    """A study whose claim is that its first arm beats its second."""
    claim = exceeds(f"{arms[0]}.acc", f"{arms[1]}.acc", by=0.05, text=f"{arms[0]} is better", primary=True)
    return Study(
        id=name,
        summary=f"{name} learns.",
        citation="@article{none}",
        arms={arm: Settings() for arm in arms},
        trial=trial,
        claims=(claim,),
        seeds=3,
    )


STUDIES = {"alpha": study("alpha", "alpha", "finetune"), "beta": study("beta", "beta", "slow")}
ENTRIES = (
    Entry("alpha", "continual", "Alpha: a first system", 2024),
    Entry("beta", "spiking", "Beta: a second system", 2023),
    Entry("gamma", "spiking", "Gamma: not built", 2022),
)


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
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in STUDIES:
        (studies / f"{name}.py").write_text(f'"""{name}."""\n')
    results = tmp_path / "results"
    results.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(catalogue, "entries", lambda: ENTRIES)
    monkeypatch.setattr(catalogue, "leagues", tuple)
    monkeypatch.setattr(catalogue, "results_directory", lambda: results)
    monkeypatch.setattr(catalogue, "study_path", lambda name: studies / f"{catalogue.find(name).id}.py")
    real = catalogue.load_study
    monkeypatch.setattr(
        catalogue, "load_study", lambda name: STUDIES[name] if name in STUDIES else real(name)
    )
    assert store.cache_directory() == tmp_path / "cache"
    return tmp_path


@pytest.fixture
def runs(bench: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Lets trials run in this process, without workers; gives what each run was asked for."""
    asked: list[dict[str, Any]] = []

    def run(study: Study, **what: Any) -> Result:
        asked.append({"study": study.id, **what})
        arms = tuple(what["arms"] or study.arms)
        seeds = tuple(range(study.seeds)) if what["seeds"] is None else what["seeds"]
        configs = fields.override_arms(study.arms, what["overrides"])
        trials, failures = [], []
        for arm, seed in itertools.product(arms, seeds):
            try:
                outcome = study.trial(Trial(arm, configs[arm], seed, what["scale"]))
            except FloatingPointError as error:
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
