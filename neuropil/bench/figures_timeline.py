"""A figure of one life from its beginning to its end: accuracy on every task, and what happened meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuropil.bench.figures import GREY
from neuropil.bench.panels import arms_with, axis, mean_matrix, mean_series, panels, safe, trials_with
from neuropil.bench.result import Result


@dataclass(frozen=True)
class Timeline:
    """Accuracy on every task from moment to moment, events marked; a choice between the arms.

    The array is a list of moments, `{"name": str, "accuracy": [a number or None a task], "event": str}`, the accuracy
    in [0, 1], None before the task was learned, the event empty where nothing happened. Of an arm the mean over seeds
    is drawn: each task thin, the mean over its tasks thick. Moments and events are those of the arm's first seed.
    """

    array: str = "timeline"
    title: str = "The life"
    caption: str = (
        "Thin: accuracy on one task, from when it was learned. Thick: mean over the tasks learned so far. Dotted: what "
        "happened just before a moment. Choose an arm to see another life."
    )

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """One panel; the first arm is shown until another is chosen."""
        arms = arms_with(result, lambda trial: trial.arrays.get(self.array))
        figure = panels([""] if arms else [], {}, height=430, x="", y="accuracy")
        owners: list[str] = []
        for arm in arms:
            lives = [trial.arrays[self.array] for trial in trials_with(result, arm, self.array)]
            self._life(figure, arm, lives, colours[arm])
            owners += [arm] * (len(figure.data) - len(owners))
        for trace, owner in zip(figure.data, owners, strict=True):
            trace.visible = owner == arms[0]
        if len(arms) > 1:
            buttons = [
                {"label": arm, "method": "restyle", "args": [{"visible": [owner == arm for owner in owners]}]}
                for arm in arms
            ]
            figure.update_layout(updatemenus=[{"name": "Life", "buttons": buttons}])
        if arms:
            longest = max((trials_with(result, a, self.array)[0].arrays[self.array] for a in arms), key=len)
            self._axes(figure, [moment["name"] for moment in longest])
        return figure

    def _life(self, figure: Any, arm: str, lives: Sequence[Sequence[Any]], colour: str) -> None:
        """The traces of an arm."""
        rows = mean_matrix([[moment["accuracy"] for moment in life] for life in lives])
        x, first = list(range(1, len(rows) + 1)), lives[0]
        tasks = max(map(len, rows), default=0)
        lowest = min((a for row in rows for a in row if a is not None), default=0.0)
        common = {"name": safe(arm), "showlegend": False}
        for task in range(tasks):
            line = {"width": 1.1, "color": colour}
            y = [row[task] if task < len(row) else None for row in rows]
            figure.add_scatter(
                x=x, y=y, mode="lines+markers", line=line, marker={"size": 3, "color": colour}, opacity=0.45,
                hovertemplate=f"task {task + 1}: %{{y:.1%}}<extra></extra>", **common,
            )  # fmt: skip
        figure.add_scatter(
            x=x, y=[mean_series([[a] for a in row])[0] if row else None for row in rows], mode="lines+markers",
            line={"width": 3, "color": colour}, marker={"size": 7, "color": colour},
            hovertemplate="mean of its tasks: %{y:.1%}<extra></extra>", **common,
        )  # fmt: skip
        marked = [(at, moment["event"]) for at, moment in zip(x, first, strict=True) if moment["event"]]
        for number, (at, event) in enumerate(marked):
            figure.add_scatter(
                x=[at - 0.5] * 2, y=[lowest, 1.04 + 0.05 * (number % 2)], mode="lines+text", text=["", safe(event)],
                textposition="top center", line={"width": 1.3, "dash": "dot", "color": GREY}, hoverinfo="skip",
                textfont={"color": GREY}, **common,
            )  # fmt: skip

    def _axes(self, figure: Any, names: Sequence[str]) -> None:
        across = {"tickvals": list(range(1, len(names) + 1)), "ticktext": [safe(name) for name in names]}
        figure.update_layout(
            {axis("xaxis", 0): {**across, "range": [0.4, len(names) + 0.6], "tickangle": -30}}
        )
        figure.update_layout({axis("yaxis", 0): {"tickformat": ".0%", "range": [None, 1.18]}})
        figure.update_layout(margin={"b": 110})
