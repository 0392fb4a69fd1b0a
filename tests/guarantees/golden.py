"""Names and formats that others rely on; `python -m tests.guarantees.golden` notes a change made on purpose."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from neuropil.bench.claim import exceeds
from neuropil.bench.result import SCHEMA, Judgement, Result, TrialRecord
from neuropil.bench.store import trial_file, write_run, write_trial
from neuropil.training import checkpoint as checkpoints
from neuropil.training import save_checkpoint
from tests.guarantees.lives import FAMILIES, trainer

FIXTURES = Path(__file__).with_name("fixtures")
NAMES = FIXTURES / "names.json"

TREE = {
    "model": {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)},
    "half": torch.tensor([0.5, -2.0], dtype=torch.float16),
    "nothing": None, "list": [1, 2.5, "x", True], "tuple": (1, (2, 3)), "numbered": {0: "zero", 1: torch.zeros(0)},
}  # fmt: skip
CLAIM = exceeds("a.acc", "b.acc", by=0.1, text="a is better", primary=True)
TRIAL = TrialRecord(
    "a", 3, "key", {"lr": 0.1, "hidden": [4, 2]}, {"acc": 1 / 3, "bwt": None}, {"seconds": 0.25},
    {"loss": [1.0, None]}, {"matrix": [[1, 2]]},
)  # fmt: skip
RUN = Result(
    "tiny", "laptop", (3,), ("a",), (TRIAL,), (Judgement(CLAIM, "holds", 0.5, 0.4, 0.6, (0.5,)),),
    seconds=1.5, configs={"a": {"lr": 0.1}}, overrides={"lr": "0.1"},
)  # fmt: skip


def packages() -> list[str]:
    root = Path(__file__).resolve().parents[2] / "neuropil"
    found = [f"neuropil.{path.parent.name}" for path in sorted(root.glob("*/__init__.py"))]
    return [name for name in found if name not in ("neuropil.cli", "neuropil.studies")]


def names() -> dict[str, Any]:
    """Public names of every package, and the keys of what every family saves."""
    public = {}
    for package in packages():
        module = importlib.import_module(package)
        public[package] = sorted(
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
        )
    keys = {}
    for name in FAMILIES:
        life = trainer(name)
        keys[name] = {
            "model": sorted(life.model.state_dict()),
            "learner": sorted(life.learner.state_dict()),
            "plugins": [[type(p).__name__, sorted(p.state_dict())] for p in life.learner.plugins],
        }
    return {"public": public, "keys": keys}


def write_formats() -> None:
    """A checkpoint and a run of the present schema, unless there are."""
    place = FIXTURES / f"checkpoint-{checkpoints.SCHEMA}"
    if not place.exists():
        save_checkpoint(FIXTURES, 1, TREE).rename(place)
    run = FIXTURES / f"run-{SCHEMA}"
    if not run.exists():
        write_run(run, RUN)
        write_trial(trial_file(run, "a", 3), TRIAL)


if __name__ == "__main__":
    FIXTURES.mkdir(exist_ok=True)
    write_formats()
    NAMES.write_text(json.dumps(names(), indent=1) + "\n")
