"""Small plots drawn as plain SVG: they need no script, and follow the page's colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from neuropil.bench.claim import Claim
from neuropil.bench.report.summary import Estimate, amount, number
from neuropil.bench.result import Judgement

WIDTH = 320.0
PAD = 14.0


class Mark(NamedTuple):
    """A seed: where it lies, how far it is moved off the line, and its value in words."""

    x: float
    dy: float
    label: str


class Strip(NamedTuple):
    """Positions, in units of a drawing `WIDTH` wide, of an interval with its seeds."""

    mean: float | None
    low: float | None
    high: float | None
    seeds: tuple[Mark, ...]
    zero: float | None = None
    zero_told: bool = False  # whether its label has room beside those of the margins
    zone: tuple[float, float] | None = None  # where the claim wants the whole interval
    margins: tuple[Mark, ...] = ()


def forest(judgement: Judgement, seeds: Sequence[int]) -> Strip:
    """A claim's interval, its seeds and the region in which the claim holds."""
    claim = judgement.claim
    metric = claim.left.split(".", 1)[-1]
    edges = (-claim.margin, claim.margin) if claim.kind == "within" else (claim.margin,)
    shown = [judgement.ci_low, judgement.ci_high, *judgement.differences, *edges, *_origin(claim)]
    low, high = _span(shown)
    strip = _strip(
        Estimate(judgement.value, None, judgement.differences), seeds, metric, low, high, height=9.0
    )
    zero = _at(0.0, low, high) if low <= 0 <= high else None
    zone = (_at(edges[0], low, high), _at(edges[1], low, high) if len(edges) == 2 else WIDTH)
    return strip._replace(
        low=_place(judgement.ci_low, low, high),
        high=_place(judgement.ci_high, low, high),
        zero=zero,
        zero_told=zero is not None and all(abs(_at(edge, low, high) - zero) > 56 for edge in edges),
        zone=zone,
        margins=tuple(Mark(_at(edge, low, high), 0.0, amount(claim, edge)) for edge in edges),
    )


def strips(estimates: Sequence[Estimate], seeds: Sequence[int], metric: str) -> list[Strip]:
    """One strip an arm, all on one scale, so that they can be compared down a column."""
    edges = [
        e.mean + s * e.half for e in estimates if e.mean is not None and e.half is not None for s in (-1, 1)
    ]
    low, high = _span([*edges, *(value for e in estimates for value in e.seeds)])
    return [_strip(e, seeds, metric, low, high, height=6.0) for e in estimates]


def _strip(
    e: Estimate, seeds: Sequence[int], metric: str, low: float, high: float, *, height: float
) -> Strip:
    # Seeds take turns above, on and below the line, so that equal ones do not hide each other.
    marks = [
        Mark(
            _at(value, low, high),
            height * (i % 3 - 1) * (len(e.seeds) > 1),
            f"seed {seed}: {number(value, metric)}",
        )
        for i, (seed, value) in enumerate(zip(seeds, e.seeds, strict=False))
        if value is not None
    ]
    whole = e.mean is not None and e.half is not None
    return Strip(
        mean=_place(e.mean, low, high),
        low=_at(e.mean - e.half, low, high) if whole else None,  # type: ignore[operator]
        high=_at(e.mean + e.half, low, high) if whole else None,  # type: ignore[operator]
        seeds=tuple(marks),
    )


def _origin(claim: Claim) -> tuple[float, ...]:
    """A difference is read against zero; a level on its own (an accuracy of 90 %) is not."""
    return (0.0,) if claim.right else ()


def _span(values: Sequence[float | None]) -> tuple[float, float]:
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _at(value: float, low: float, high: float) -> float:
    return round(PAD + (WIDTH - 2 * PAD) * (value - low) / (high - low), 2)


def _place(value: float | None, low: float, high: float) -> float | None:
    return None if value is None else _at(value, low, high)
