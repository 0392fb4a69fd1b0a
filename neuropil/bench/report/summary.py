"""What a result says, in numbers and plain words; shared by the page and the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from neuropil.bench.claim import Claim
from neuropil.bench.result import Judgement, Result
from neuropil.bench.statistics import interval

FRACTIONS = ("acc", "accuracy", "bwt", "fwt", "forgetting", "transfer", "error", "new_task", "captured")
WORDS = {
    "acc": "average accuracy",
    "bwt": "backward transfer",
    "fwt": "forward transfer",
    "new_task": "accuracy just learned",
}
JUDGED_SCALE = "laptop"
MINUS = "\N{MINUS SIGN}"


class Estimate(NamedTuple):
    """Mean of the seeds that have a value, half of its 95 % interval (None for fewer than two), and the seeds."""

    mean: float | None
    half: float | None
    seeds: tuple[float | None, ...]


def estimate(values: Sequence[float | None]) -> Estimate:
    """Mean over seeds with Student's t interval.

    >>> mean, half, _ = estimate([1.0, 2.0, 3.0])
    >>> mean, round(half, 3)
    (2.0, 2.484)
    """
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Estimate(known[0] if known else None, None, tuple(values))
    mean, low, _ = interval(known)
    return Estimate(mean, mean - low, tuple(values))


def is_fraction(metric: str) -> bool:
    """Whether a metric is a fraction by its name, to be shown in percent."""
    return metric in FRACTIONS or metric.rsplit("_", 1)[-1] in FRACTIONS


def number(value: float | None, metric: str = "", *, unit: bool = True) -> str:
    """A value as a person writes it: percent for fractions, three significant digits for the rest.

    >>> number(0.9512, "acc"), number(1234567.0), number(0.012345), number(26.04), number(None)
    ('95.1 %', '1.23 M', '0.0123', '26.0', '-')
    """
    if value is None:
        return "-"
    if is_fraction(metric):
        text = f"{100 * value:.1f}"
        return ("0.0" if text == "-0.0" else text).replace("-", MINUS) + (" %" if unit else "")
    for size, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return _three_digits(value / (1e3 if letter == " k" else size)) + letter
    return _three_digits(value)


def amount(claim: Claim, value: float | None, *, unit: bool = True) -> str:
    """A value of what a claim measures: a difference of fractions is in points, not in percent."""
    metric = claim.left.split(".", 1)[-1]
    if value is None or claim.right is None or not is_fraction(metric):
        return number(value, metric, unit=unit)
    return number(value, metric, unit=False) + (" points" if unit else "")


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(0.4), duration(75), duration(7320)
    ('0.4 s', '1 min 15 s', '2 h 2 min')
    """
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def metric_names(result: Result) -> list[str]:
    """Metrics of all trials, in order of first appearance."""
    return _names(trial.metrics for trial in result.trials)


def cost_names(result: Result) -> list[str]:
    """Costs of all trials, in order of first appearance."""
    return _names(trial.cost for trial in result.trials)


def cost(result: Result, arm: str, name: str) -> list[float | None]:
    """A cost of an arm, one value per seed in the order of `Result.seeds`."""
    by_seed = {trial.seed: trial.cost.get(name) for trial in result.trials if trial.arm == arm}
    return [by_seed.get(seed) for seed in result.seeds]


def verdict(result: Result, judgement: Judgement) -> str:
    """The verdict in words; only laptop scale is judged.

    A claim is a statement about the laptop scale, so that a smoke run cannot make it fail.
    """
    return judgement.verdict or "not judged" if result.scale == JUDGED_SCALE else "not judged"


def quantity(claim: Claim) -> str:
    """What a claim measures, as a formula."""
    return f"{claim.left} {MINUS} {claim.right}" if claim.right else claim.left


def condition(claim: Claim) -> str:
    """What a claim asks of its quantity."""
    margin = amount(claim, claim.margin)
    if claim.kind == "within":
        return f"within ±{margin}"
    return f"above {margin}"


def headline(result: Result, primary: Claim) -> str:
    """The outcome of the primary claim in one plain sentence."""
    judged = next((j for j in result.judgements if j.claim.primary), None)
    absent = sorted(primary.arms - set(result.arms))
    if absent:
        word = "is" if len(absent) == 1 else "are"
        return f"{_listed(result.arms)} side by side; {_listed(absent)}, which the claim needs, {word} not in this run"
    sides = [side.split(".", 1) for side in (primary.left, primary.right) if side]
    told = ", ".join(_told(result, *side, first=i == 0) for i, side in enumerate(sides))
    return f"{told}: {_ending(result, judged)}"


def _told(result: Result, arm: str, metric: str, *, first: bool) -> str:
    mean = estimate(result.metric(arm, metric)).mean
    if mean is None:
        return f"{arm} has no {_words(metric)}"
    if metric == "bwt" and mean < 0:
        return f"{arm} forgets {100 * -mean:.1f} points" if first else f"{arm} {100 * -mean:.1f}"
    if first:
        return f"{arm} reaches {number(mean, metric)} {_words(metric)}"
    return f"{arm} {number(mean, metric)}"


def _ending(result: Result, judged: Judgement | None) -> str:
    if result.scale != JUDGED_SCALE:
        return f"not judged at {result.scale} scale"
    if judged is None or judged.verdict is None:
        return "the claim was not judged"
    return {
        "holds": "the claim holds",
        "fails": "the claim fails",
        "undecided": "these seeds cannot decide the claim",
    }[judged.verdict]


def _three_digits(value: float) -> str:
    if value == int(value) and abs(value) < 1000:
        return f"{value:.0f}".replace("-", MINUS)
    return f"{value:#.3g}".rstrip(".").replace("-", MINUS)


def _words(metric: str) -> str:
    return WORDS.get(metric, metric.replace("_", " "))


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _names(mappings: Iterable[object]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))  # type: ignore[attr-defined]
