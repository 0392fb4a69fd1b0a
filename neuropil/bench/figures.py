"""Figures that a study lists in `Study.figures`, drawn by the report from a `Result`.

A figure is anything with a `title`, a `caption` and `draw(result, colours) -> plotly Figure`; these are the ones
that many studies share. Each draws what is there: arms, arrays or seeds that are missing are left out, and a
figure with nothing to show is an empty plotly figure. Colours come from the report, one per arm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol

from neuropil.bench.panels import (
    Series,
    arms_with,
    axis,
    bar,
    dots,
    evenly,
    heat_map,
    keys,
    layer_names,
    lines,
    mean_matrix,
    mean_series,
    on,
    panels,
    rows_axis,
    safe,
    trials_with,
)
from neuropil.bench.report.summary import WORDS, estimate, is_fraction
from neuropil.bench.result import Result, TrialRecord

GREY = "#7f8894"  # readable on paper and on slate
SEQUENTIAL = [[0.0, "#f1ead9"], [0.35, "#a9c8bd"], [0.7, "#4a8f98"], [1.0, "#173f56"]]
COLOUR_BAR = {
    "orientation": "h",
    "thickness": 8,
    "len": 0.45,
    "outlinewidth": 0,
    "tickformat": ".0%",
    "tickangle": 0,
    "nticks": 5,
    "x": 1,
    "xanchor": "right",
    "y": 1,
    "yref": "container",
    "yanchor": "top",
}
MAX_SPIKES = 4000  # drawn per arm; more would weigh down the page and be a solid block anyway
MAX_PANELS = 8


class Figure(Protocol):
    """What the report asks of a figure."""

    @property
    def title(self) -> str:
        """Heading above the figure."""

    @property
    def caption(self) -> str:
        """One or two sentences on how to read it."""

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """Plotly figure of `result`, arms in `colours`."""


@dataclass(frozen=True)
class AccuracyMatrix:
    """Heat map per arm of the accuracy on each task after learning each task, mean over seeds or one seed.

    The array is `[task][task]`: row `t` holds the accuracies in [0, 1] after learning task `t`, column `k` those
    of task `k`; None where it was not evaluated.
    """

    array: str = "accuracy_matrix"
    title: str = "Accuracy matrix"
    caption: str = (
        "Each row is a moment, after learning one more task; each column is a task. A column that fades "
        "downwards is a task being forgotten."
    )

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """Heat maps side by side on one colour scale, with a choice between the mean and each seed."""
        arms = arms_with(result, lambda trial: trial.arrays.get(self.array))
        figure = panels(arms, colours, height=230, x="task", y="after task")
        for panel, arm in enumerate(arms):
            mean = mean_matrix([trial.arrays[self.array] for trial in trials_with(result, arm, self.array)])
            heat_map(figure, panel, arm, mean)
            figure.update_layout(
                {axis("yaxis", panel): {"autorange": "reversed", "dtick": 1, "showgrid": False}}
            )
            figure.update_layout({axis("xaxis", panel): {"dtick": 1, "showgrid": False}})
        scale = {"colorscale": SEQUENTIAL, "cmin": self._floor(result), "cmax": 1, "colorbar": COLOUR_BAR}
        figure.update_layout(coloraxis=scale)
        if arms and len(result.seeds) > 1:
            figure.update_layout(updatemenus=[self._seed_menu(result, arms)])
        return figure

    def _floor(self, result: Result) -> float:
        """Start of the colour scale: below it lies only chance, on tasks that were not learned yet."""
        learned = [
            value
            for trial in result.trials
            for t, row in enumerate(trial.arrays.get(self.array) or ())
            for value in row[: t + 1]
            if value is not None
        ]
        return max(0.0, math.floor(10 * min(learned, default=0.0) - 0.5) / 10)

    def _seed_menu(self, result: Result, arms: Sequence[str]) -> dict[str, Any]:
        def button(label: str, seeds: Sequence[int]) -> dict[str, Any]:
            matrices = [
                [t.arrays[self.array] for t in trials_with(result, arm, self.array) if t.seed in seeds]
                for arm in arms
            ]
            return {"label": label, "method": "restyle", "args": [{"z": [mean_matrix(m) for m in matrices]}]}

        buttons = [button(f"seed {seed}", [seed]) for seed in result.seeds]
        return {"name": "Seed", "buttons": [button("mean over seeds", result.seeds), *buttons]}


@dataclass(frozen=True)
class TaskCurves:
    """Accuracy of each task through time, one panel a task, every arm in its colour.

    The array is `[task][task]` as for `AccuracyMatrix`. The mean over seeds is thick, every seed thin. Of more
    than eight tasks, eight evenly spaced ones are drawn.
    """

    array: str = "accuracy_matrix"
    title: str = "Each task through time"
    caption: str = (
        "Accuracy on one task from the moment it was learned to the end of the stream; a flat line is a task kept. "
        "Thick: mean over seeds. Thin: every seed."
    )

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """Line panels with a common vertical axis."""
        arms = arms_with(result, lambda trial: trial.arrays.get(self.array))
        tasks = max(
            (len(t.arrays[self.array]) for a in arms for t in trials_with(result, a, self.array)), default=0
        )
        shown = evenly(tasks, MAX_PANELS)
        names = [f"task {task + 1}" for task in shown]
        figure = panels(names, {}, height=190, x="tasks learned", y="accuracy")
        for panel, task in enumerate(shown):

            def pick(trial: TrialRecord, task: int = task) -> Series | None:
                matrix = trial.arrays.get(self.array)
                if matrix is None:
                    return None
                return [row[task] if task <= t and task < len(row) else None for t, row in enumerate(matrix)]

            lines(figure, panel, result, colours, pick)
            figure.update_layout({axis("xaxis", panel): {"range": [0.8, tasks + 0.2]}})
            figure.update_layout(
                {axis("yaxis", panel): {"tickformat": ".0%", "matches": "y" if panel else None}}
            )
        return figure


@dataclass(frozen=True)
class LearningCurves:
    """A curve of every arm, mean over seeds thick and every seed thin.

    `curve` names an entry of `TrialRecord.curves`: one number a step along `x_title`, None where undefined.
    """

    curve: str
    title: str = "Learning curves"
    caption: str = "Thick: mean over seeds. Thin: every seed."
    x_title: str = "epoch"
    y_title: str = ""

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """One panel of lines."""
        present = any(self.curve in trial.curves for trial in result.trials)
        label = self.y_title or self.curve.replace("_", " ")
        figure = panels([""] if present else [], {}, height=340, x=self.x_title, y=label)
        if present:
            lines(figure, 0, result, colours, lambda trial: trial.curves.get(self.curve))
        return figure


@dataclass(frozen=True)
class SpikeRaster:
    """Spikes of a layer for one sample, one panel an arm, and how active its neurons are.

    The array is `{"layer": str, "times": [...], "neurons": [...], "time_steps": T, "n_neurons": N}`: spike `i` is
    of neuron `neurons[i]` (0 to N - 1) at step `times[i]` (0 to T - 1). The first seed that has it is drawn.
    """

    array: str = "raster"
    title: str = "Spike raster"
    caption: str = (
        "One sample through one layer: a mark is a spike. The last panel counts the neurons by how often they "
        "fired."
    )

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """Raster panels, then the histogram of spikes a neuron."""
        arms = arms_with(result, lambda trial: trial.arrays.get(self.array))
        figure = panels(
            [*arms, "share of neurons"] if arms else [], colours, height=230, x="time step", y="neuron"
        )
        for panel, arm in enumerate(arms):
            raster = trials_with(result, arm, self.array)[0].arrays[self.array]
            self._raster(figure, panel, arm, raster, colours[arm])
            self._histogram(figure, len(arms), arm, raster, colours[arm])
        if arms:
            figure.update_layout(
                {
                    axis("xaxis", len(arms)): {"title": {"text": "spikes in the sample"}},
                    axis("yaxis", len(arms)): {"title": {"text": " "}, "tickformat": ".0%"},
                }
            )
        return figure

    def _raster(self, figure: Any, panel: int, arm: str, raster: Mapping[str, Any], colour: str) -> None:
        stride = -(-len(raster["times"]) // MAX_SPIKES) or 1
        # Thinned by neuron, not by spike, so that what is drawn keeps its temporal pattern.
        spikes = [(t, n) for t, n in zip(raster["times"], raster["neurons"], strict=False) if n % stride == 0]
        figure.add_scatter(
            x=[t for t, _ in spikes],
            y=[n for _, n in spikes],
            mode="markers",
            marker={"symbol": "square", "size": 3.5, "color": colour},
            name=safe(arm),
            showlegend=False,
            hovertemplate=f"{safe(raster.get('layer', ''))} neuron %{{y}}, step %{{x}}<extra>{safe(arm)}</extra>",
            **on(panel),
        )
        span = {"range": [-0.5, raster["time_steps"] - 0.5], "showgrid": False}
        figure.update_layout({axis("xaxis", panel): span})
        figure.update_layout({axis("yaxis", panel): {"range": [-1, raster["n_neurons"]], "showgrid": False}})

    def _histogram(self, figure: Any, panel: int, arm: str, raster: Mapping[str, Any], colour: str) -> None:
        spikes = [0] * int(raster["n_neurons"])
        for neuron in raster["neurons"]:
            spikes[int(neuron)] += 1
        counts = list(range(max(spikes, default=0) + 1))
        figure.add_scatter(
            x=counts,
            y=[sum(s == count for s in spikes) / max(len(spikes), 1) for count in counts],
            mode="lines",
            line={"color": colour, "width": 1.8, "shape": "hvh"},
            name=safe(arm),
            showlegend=False,
            hovertemplate="%{y:.1%} of neurons fired %{x} times",
            **on(panel),
        )


@dataclass(frozen=True)
class FiringRates:
    """Mean firing rate of each layer after each task, every arm in its colour.

    The array is `{layer: [rate per task]}`, rates in spikes a neuron and step, in [0, 1].
    """

    array: str = "rates"
    title: str = "Firing rates"
    caption: str = (
        "Spikes per neuron and step in each layer, task after task. Every spike costs energy downstream."
    )

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """One panel of lines a layer."""
        layers = keys(trial.arrays.get(self.array) for trial in result.trials)
        figure = panels(layer_names(layers), {}, height=230, x="tasks learned", y="spikes per step")
        for panel, layer in enumerate(layers):

            def pick(trial: TrialRecord, layer: str = layer) -> Series | None:
                rates: Series | None = (trial.arrays.get(self.array) or {}).get(layer)
                return rates

            lines(figure, panel, result, colours, pick)
            figure.update_layout({axis("yaxis", panel): {"rangemode": "tozero"}})
        return figure


@dataclass(frozen=True)
class Spectra:
    """Share of the activity's energy that the first `k` learned directions capture, against the best possible.

    The array is `{layer: {"hebbian": [...], "optimal": [...]}}`: captured energy in [0, 1] with 1, 2, ... M
    directions, those learned by the circuit and those of the singular value decomposition.
    """

    array: str = "spectra"
    title: str = "What the learned subspace captures"
    caption: str = (
        "Captured share of the energy of a layer's input against the number of directions. Dashed: the optimum, "
        "from the singular value decomposition of the same activity."
    )

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """One panel a layer; the optimum dashed in grey."""
        layers = keys(trial.arrays.get(self.array) for trial in result.trials)
        figure = panels(layer_names(layers), {}, height=260, x="directions", y="captured energy")
        for panel, layer in enumerate(layers):

            def pick(trial: TrialRecord, which: str = "hebbian", layer: str = layer) -> Series | None:
                spectrum: Series | None = (trial.arrays.get(self.array) or {}).get(layer, {}).get(which)
                return spectrum

            lines(figure, panel, result, colours, pick)
            optimal = mean_series([s for trial in result.trials if (s := pick(trial, "optimal")) is not None])
            figure.add_scatter(
                x=list(range(1, len(optimal) + 1)),
                y=optimal,
                mode="lines",
                line={"color": GREY, "dash": "dash", "width": 1.6},
                name="optimum",
                legendgroup="optimum",
                showlegend=panel == 0,
                hovertemplate="%{y:.3f}",
                **on(panel),
            )
            figure.update_layout({axis("yaxis", panel): {"tickformat": ".0%", "rangemode": "tozero"}})
        return figure


@dataclass(frozen=True)
class CostBars:
    """What a trial of each arm cost: mean over seeds as a bar, every seed as a dot.

    `costs` names entries of `TrialRecord.cost`; empty draws all of them, one panel each.
    """

    costs: tuple[str, ...] = ()
    title: str = "Cost"
    caption: str = "Per trial. Bars: mean over seeds. Dots: every seed."

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """One panel of bars a cost."""
        known = keys(trial.cost for trial in result.trials)
        costs = [cost for cost in (self.costs or known) if cost in known]
        figure = panels(
            [cost.replace("_", " ") for cost in costs], {}, height=60 + 30 * len(result.arms), x="", y=""
        )
        for panel, cost in enumerate(costs):
            for arm in result.arms:
                values = [t.cost[cost] for t in result.trials if t.arm == arm and cost in t.cost]
                if values:
                    figure.add_bar(x=[fmean(values)], y=[safe(arm)], **bar(panel, arm, colours))
                    figure.add_scatter(x=values, y=[safe(arm)] * len(values), **dots(panel, arm, GREY))
            figure.update_layout({axis("yaxis", panel): rows_axis(result.arms)})
            figure.update_layout(
                {axis("xaxis", panel): {"rangemode": "tozero", "tickformat": "~s", "nticks": 5}}
            )
        figure.update_layout(bargap=0.35)
        return figure


@dataclass(frozen=True)
class MetricStrip:
    """A metric of every arm: every seed a dot, the mean an upright bar in its 95 % interval.

    `metric` names an entry of `TrialRecord.metrics`; an empty title is the metric's name.
    """

    metric: str
    title: str = ""
    caption: str = "Dots: every seed. Upright bar and line: their mean and its 95 % confidence interval."

    def __post_init__(self) -> None:
        if not self.title:
            object.__setattr__(self, "title", self.metric.replace("_", " "))

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """One panel, one row an arm."""
        estimates = {arm: estimate(result.metric(arm, self.metric)) for arm in result.arms}
        rows = [arm for arm in result.arms if estimates[arm].mean is not None]
        words = WORDS.get(self.metric, self.metric.replace("_", " "))
        figure = panels([""] if rows else [], {}, height=20 + 34 * len(rows), x=words, y="")
        for arm in rows:
            mean, half, seeds = estimates[arm]
            values = [value for value in seeds if value is not None]
            figure.add_scatter(x=values, y=[safe(arm)] * len(values), **dots(0, arm, colours[arm]))
            mark = {"symbol": "line-ns", "size": 18, "line": {"width": 2.5, "color": colours[arm]}}
            upright = dots(0, arm, colours[arm]) | {"marker": mark, "hovertemplate": "mean %{x:.4g}"}
            whisker = {"type": "data", "color": colours[arm], "thickness": 2, "width": 0}
            whisker["array"] = [half or 0.0]
            figure.add_scatter(x=[mean], y=[safe(arm)], error_x=whisker, **upright)
        if rows:
            figure.update_layout({axis("yaxis", 0): rows_axis(rows)})
            figure.update_layout(
                {axis("xaxis", 0): {"tickformat": "~%" if is_fraction(self.metric) else "~g"}}
            )
        return figure
