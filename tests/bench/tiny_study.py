"""A study that needs no training: each trial draws numbers from torch's seeded state."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Literal

import torch

from neuropil.bench import Config, Outcome, Study, Trial, equivalent, exceeds, setting
from neuropil.errors import NonFiniteError


@dataclass(frozen=True)
class Tiny(Config):
    shift: float = setting(0.1, "added to every draw", low=-1, high=1)
    draws: int = setting(16, "numbers drawn", low=1, high=1000)
    mode: Literal["calm", "raise", "die", "empty"] = setting("calm", "what the trial does")
    sleep: float = setting(0.0, "seconds to sleep", low=0, high=60)
    layers: tuple[int, ...] = setting((4, 2), "sizes", low=1)
    limit: float | None = setting(None, "a limit, if any")
    noisy: bool = setting(False, "prints")


@dataclass(frozen=True)
class Other(Config):
    shift: float = setting(0.0, "added to every draw", low=-1, high=1)
    strength: float = setting(1.0, "has no effect", low=0, high=10)
    sleep: float = setting(0.0, "seconds to sleep", low=0, high=60)


def trial(cell: Trial) -> Outcome:
    config = cell.config
    if config.sleep:
        time.sleep(config.sleep)
    mode = getattr(config, "mode", "calm")
    if getattr(config, "noisy", False):
        sys.stdout.write("noise on standard output\n")
    if mode == "raise":
        raise NonFiniteError("loss is NaN in step 3")
    if mode == "die":
        os._exit(7)
    values = torch.rand(getattr(config, "draws", 16)) + config.shift
    torch.set_default_dtype(torch.float64)  # a careless trial: the next one must not notice
    bonus = 0.0 if cell.evaluate_on == "test" else -abs(config.shift - 0.5)
    return Outcome(
        {"acc": values.mean().item() + bonus, "odd": float("nan") if mode == "empty" else 1.0, "pid": None},
        cost={"operations": 16.0},
        curves={"draws": values.tolist()},
        arrays={"matrix": values.reshape(1, -1), "threads": torch.get_num_threads()},
    )


def make(**changes: object) -> Study:
    arms = {"tiny": Tiny(), "other": Other()}
    settings = {
        "id": "tiny",
        "summary": "One arm is shifted.",
        "citation": "@misc{tiny}",
        "arms": arms,
        "trial": trial,
        "claims": (
            exceeds("tiny.acc", "other.acc", by=0.05, text="shifted", primary=True),
            equivalent("tiny.odd", "other.acc", within=0.5, text="alike"),
        ),
        "search": {
            "tiny": {"shift": [0.1, 0.3, 0.5], "draws": [8, 16, 32]},
            "other": {"strength": [1.0, 2.0]},
        },
        "scales": {"smoke": {"draws": 4}},
        "seeds": 3,
        "tune_trials": 4,
    }
    return Study(**{**settings, **changes})  # type: ignore[arg-type]


study = make()
