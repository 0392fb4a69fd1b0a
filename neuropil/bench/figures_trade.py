"""Figures of what an arm reaches against what it costs, and of matrices that a trial measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from neuropil.bench.figures import SEQUENTIAL
from neuropil.bench.panels import arms_with, axis, heat_map, mean_matrix, on, panels, safe, trials_with
from neuropil.bench.report.summary import estimate
from neuropil.bench.result import Result


@dataclass(frozen=True)
class TradeOff:
    """A metric of every arm against several costs, one panel each; the line joins arms that no other beats in both.

    `metric` names an entry of `TrialRecord.metrics`, `costs` entries of `TrialRecord.cost`; less cost is better. A
    cost that spans more than a decade is drawn on a logarithmic axis, from 1 on: what costs nothing stands at its edge.
    """

    metric: str
    costs: tuple[str, ...]
    title: str = "What it reaches, what it costs"
    caption: str = (
        "Up is better, left is cheaper. Upright lines: 95 % confidence intervals over seeds. The dashed line joins the "
        "arms that no other arm beats in both."
    )

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """One panel a cost, one point an arm."""
        found = {cost: points for cost in self.costs if (points := self._points(result, cost))}
        figure = panels([cost.replace("_", " ") for cost in found], {}, height=420, x="", y=self.metric)
        for panel, points in enumerate(found.values()):
            logarithmic = _spans_decades([x for x, _ in points.values()])
            at = {arm: (max(x, 1.0) if logarithmic else x, y) for arm, (x, y) in points.items()}
            best = frontier(at)
            figure.add_scatter(
                x=[at[arm][0] for arm in best], y=[at[arm][1] for arm in best], mode="lines", hoverinfo="skip",
                line={"color": "#8a8a8a", "dash": "dash", "width": 1.2}, showlegend=False, **on(panel),
            )  # fmt: skip
            for arm, (x, y) in at.items():
                half = estimate(result.metric(arm, self.metric)).half or 0.0
                figure.add_scatter(
                    x=[x], y=[y], mode="markers+text", text=[safe(arm)], textposition="top center", name=safe(arm),
                    marker={"size": 9, "color": colours[arm]}, textfont={"size": 10}, showlegend=False,
                    error_y={"type": "data", "array": [half], "color": colours[arm], "thickness": 1, "width": 0},
                    hovertemplate=f"{safe(arm)}: %{{y:.3f}} at %{{x:.4~s}}<extra></extra>", **on(panel),
                )  # fmt: skip
            if logarithmic:
                figure.update_layout({axis("xaxis", panel): {"type": "log", "tickformat": "~s"}})
        return figure

    def _points(self, result: Result, cost: str) -> dict[str, tuple[float, float]]:
        points = {}
        for arm in result.arms:
            mean = estimate(result.metric(arm, self.metric)).mean
            paid = [t.cost[cost] for t in result.trials if t.arm == arm and cost in t.cost]
            if mean is not None and paid:
                points[arm] = (fmean(paid), mean)
        return points


def frontier(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of points `(cost, value)` that no other beats in both, from cheap to dear.

    >>> frontier({"a": (1, 0.5), "b": (2, 0.4), "c": (3, 0.9)})
    ['a', 'c']
    """
    best: list[str] = []
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if not best or points[name][1] > points[best[-1]][1]:
            best.append(name)
    return best


def _spans_decades(values: Sequence[float]) -> bool:
    positive = [value for value in values if value > 0]
    return bool(positive) and max(positive) > 10 * max(1.0, min(positive))


@dataclass(frozen=True)
class Matrices:
    """A matrix of shares of every arm as a heat map, mean over seeds.

    The array is `[row][column]`, numbers in [0, 1].
    """

    array: str
    title: str
    caption: str
    x: str
    y: str

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """Heat maps side by side on one colour scale."""
        arms = arms_with(result, lambda trial: trial.arrays.get(self.array))
        figure = panels(arms, colours, height=230, x=self.x, y=self.y)
        for panel, arm in enumerate(arms):
            mean = mean_matrix([trial.arrays[self.array] for trial in trials_with(result, arm, self.array)])
            heat_map(figure, panel, arm, mean)
            hover = f"{safe(self.x)} %{{x}}, {safe(self.y)} %{{y}}: %{{z:.1%}}<extra>{safe(arm)}</extra>"
            figure.data[-1].hovertemplate = hover
            plain = {"dtick": 1, "showgrid": False}
            figure.update_layout(
                {axis("yaxis", panel): {**plain, "autorange": "reversed"}, axis("xaxis", panel): plain}
            )
        figure.update_layout(coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1})
        return figure
