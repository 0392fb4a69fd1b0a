"""A study: what is compared, on what, over which seeds, and what is claimed of the outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from neuropil.bench.claim import Claim
from neuropil.errors import ConfigError, nearest

Scale = Literal["smoke", "laptop", "paper"]
Split = Literal["validation", "test"]


@dataclass(frozen=True)
class Config:
    """Base of every arm's settings. Subclass it as a frozen dataclass, one documented field a setting.

    Field metadata is read by `--set`, by validation and by the report: `setting()` makes such a field.
    """


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[Any] | None = None,
) -> Any:
    """Dataclass field with a help text and an allowed range (inclusive) or set of choices."""
    metadata = {"help": help, "low": low, "high": high, "choices": tuple(choices) if choices else None}
    if isinstance(default, list | dict | set):
        raise ConfigError("a setting's default must be immutable; use a tuple")
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Trial:
    """One cell of a study: an arm with its settings, on one seed."""

    arm: str
    config: Any  # the arm's Config, scale and `--set` already applied
    seed: int
    scale: Scale
    evaluate_on: Split = "test"  # `tune` judges on validation data, `run` on test data


@dataclass(frozen=True)
class Outcome:
    """What a trial returns.

    `metrics` are deterministic numbers, fractions in [0, 1] where they are fractions, None where undefined.
    `cost` is what varies with the machine (seconds) or counts work (operations). `curves` are numbers along a
    named axis; `arrays` are whatever the study's figures draw, as nested lists or numpy arrays.
    """

    metrics: Mapping[str, float | None]
    cost: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    arrays: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """One published system held against its claim. A study file defines exactly one, named `study`."""

    id: str
    summary: str  # what the system does and what is claimed, in one plain sentence
    citation: str  # BibTeX
    arms: Mapping[str, Config]  # settings at laptop scale; `tune`'s choices and `--set` are laid over them
    trial: Callable[[Trial], Outcome]
    claims: tuple[Claim, ...]
    search: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)
    scales: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by field or arm.field
    seeds: int = 5
    first_seed: int = 0  # a run that repeats an earlier one begins after the seeds of that
    objective: str = "acc"  # what `tune` maximises on validation data
    tune_trials: int = 8  # settings tried per arm, the same for every arm
    published: Mapping[str, float] = field(default_factory=dict)  # "arm.metric": the paper's number
    data: Callable[[Any], str] | None = None  # config -> checksum of the data that its trials read
    figures: tuple[Any, ...] = ()  # what the report draws, see `neuropil.bench.figures`
    notes: str = ""  # what differs from the paper, and how to use it; see `catalogue.load_study` for the rest

    @property
    def seed_range(self) -> range:
        """Seeds of the evidence."""
        return range(self.first_seed, self.first_seed + self.seeds)

    def __post_init__(self) -> None:
        primary = [claim for claim in self.claims if claim.primary]
        if len(primary) != 1:
            raise ConfigError(f"study {self.id!r}: exactly one claim must be primary, found {len(primary)}")
        for claim in self.claims:
            for side in filter(None, (claim.left, claim.right)):
                if not side.partition(".")[2]:
                    raise ConfigError(f"study {self.id!r}: a claim compares 'arm.metric', got {side!r}")
            self._check_arms(claim.arms, f"claim {claim.text!r}")
        self._check_arms(self.search, "the search space")

    def _check_arms(self, arms: Iterable[str], where: str) -> None:
        for arm in sorted(set(arms) - set(self.arms)):
            hint = nearest(arm, self.arms)
            raise ConfigError(f"study {self.id!r}: {where} names undeclared arm {arm!r}{hint}")
