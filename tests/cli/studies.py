"""Two studies for the command line, whose trials are sums; in the place of the real ones once installed."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from neuropil.bench import catalogue
from neuropil.bench.catalogue import Entry
from neuropil.bench.claim import exceeds
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.errors import NonFiniteError


@dataclasses.dataclass(frozen=True)
class Settings(Config):
    """Settings of every arm."""

    lr: float = setting(0.1, "learning rate", low=0.0, high=1.0)
    stream: str = setting("permuted", "what is learned", choices=("permuted", "split"))
    wait: float = setting(0.0, "seconds to wait", low=0.0, high=60.0)
    tasks: int = setting(3, "tasks in the stream", low=1, high=100)


LEVEL = {"alpha": 0.9, "finetune": 0.5, "beta": 0.8, "slow": 0.7}


def trial(cell: Trial) -> Outcome:
    """Accuracy that depends on arm and seed alone; `bwt` is undefined for one task."""
    if cell.config.lr == 0.75:
        raise NonFiniteError("loss is not finite\nat step 3")
    time.sleep(cell.config.wait)
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


HERE = Path(__file__)


def install(place: Path, patch: pytest.MonkeyPatch) -> None:
    """Put the two studies in place of the real ones, their results below `place`."""
    results = place / "results"
    results.mkdir(exist_ok=True)
    real = catalogue.load_study
    patch.setattr(catalogue, "entries", lambda: ENTRIES)
    patch.setattr(catalogue, "leagues", tuple)
    patch.setattr(catalogue, "results_directory", lambda: results)
    patch.setattr(
        catalogue, "study_path", lambda name: HERE if catalogue.find(name).id in STUDIES else place / name
    )
    patch.setattr(catalogue, "load_study", lambda name: STUDIES[name] if name in STUDIES else real(name))
