"""Figures that a study lists in `Study.figures`, drawn by the report from a `Result`.

A figure is anything with a `title`, a `caption` and `draw(result, colours) -> plotly Figure`; these are the ones
that many studies share. Each draws what is there: arms, arrays or seeds that are missing are left out, and a
figure with nothing to show is an empty plotly figure. Colours come from the report, one per arm.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol

from neuropil.bench.result import Result, TrialRecord
from neuropil.errors import MissingExtraError

GREY = "#7f8894"  # readable on paper and on slate
SEQUENTIAL = [[0.0, "#f1ead9"], [0.35, "#a9c8bd"], [0.7, "#4a8f98"], [1.0, "#173f56"]]
MAX_SPIKES = 4000  # drawn per arm; more would weigh down the page and be a solid block anyway
MAX_PANELS = 8

Series = Sequence[float | None]
Pick = Callable[[TrialRecord], "Series | None"]


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
        arms = _arms_with(result, lambda trial: trial.arrays.get(self.array))
        figure = _panels(arms, colours, height=230, x="task", y="after task")
        for panel, arm in enumerate(arms):
            mean = _mean_matrix([trial.arrays[self.array] for trial in _trials(result, arm, self.array)])
            _heat_map(figure, panel, arm, mean)
            figure.update_layout({_axis("yaxis", panel): {"autorange": "reversed", "dtick": 1}})
            figure.update_layout({_axis("xaxis", panel): {"dtick": 1, "showgrid": False}})
        scale = {"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1}
        bar = {"thickness": 10, "outlinewidth": 0, "tickformat": ".0%", "len": 0.9}
        figure.update_layout(coloraxis={**scale, "colorbar": bar})
        if arms and len(result.seeds) > 1:
            figure.update_layout(updatemenus=[self._seed_menu(result, arms)])
        return figure

    def _seed_menu(self, result: Result, arms: Sequence[str]) -> dict[str, Any]:
        def button(label: str, seeds: Sequence[int]) -> dict[str, Any]:
            matrices = [
                [t.arrays[self.array] for t in _trials(result, arm, self.array) if t.seed in seeds] for arm in arms
            ]
            return {"label": label, "method": "restyle", "args": [{"z": [_mean_matrix(m) for m in matrices]}]}

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
        arms = _arms_with(result, lambda trial: trial.arrays.get(self.array))
        tasks = max((len(t.arrays[self.array]) for a in arms for t in _trials(result, a, self.array)), default=0)
        shown = _evenly(tasks, MAX_PANELS)
        names = [f"task {task + 1}" for task in shown]
        figure = _panels(names, {}, height=190, x="tasks learned", y="accuracy")
        for panel, task in enumerate(shown):

            def pick(trial: TrialRecord, task: int = task) -> Series | None:
                matrix = trial.arrays.get(self.array)
                return None if matrix is None else [row[task] if task < len(row) else None for row in matrix]

            _lines(figure, panel, result, colours, pick)
            figure.update_layout({_axis("yaxis", panel): {"tickformat": ".0%", "matches": "y" if panel else None}})
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
        figure = _panels([""] if present else [], {}, height=340, x=self.x_title, y=label)
        if present:
            _lines(figure, 0, result, colours, lambda trial: trial.curves.get(self.curve))
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
        arms = _arms_with(result, lambda trial: trial.arrays.get(self.array))
        figure = _panels([*arms, "all arms"] if arms else [], colours, height=230, x="time step", y="neuron")
        for panel, arm in enumerate(arms):
            raster = _trials(result, arm, self.array)[0].arrays[self.array]
            self._raster(figure, panel, arm, raster, colours[arm])
            self._histogram(figure, len(arms), arm, raster, colours[arm])
        if arms:
            figure.update_layout(
                {
                    _axis("xaxis", len(arms)): {"title": {"text": "spikes in the sample"}},
                    _axis("yaxis", len(arms)): {"title": {"text": "share of neurons"}, "tickformat": ".0%"},
                }
            )
        return figure

    def _raster(self, figure: Any, panel: int, arm: str, raster: Mapping[str, Any], colour: str) -> None:
        stride = -(-len(raster["times"]) // MAX_SPIKES) or 1
        # Thinned by neuron, not by spike, so that what is drawn keeps its temporal pattern.
        spikes = [
            (t, n) for t, n in zip(raster["times"], raster["neurons"], strict=False) if n % stride == 0
        ]
        figure.add_scatter(
            x=[t for t, _ in spikes],
            y=[n for _, n in spikes],
            mode="markers",
            marker={"symbol": "line-ns", "size": 5, "line": {"width": 1.4, "color": colour}, "color": colour},
            name=_safe(arm),
            showlegend=False,
            hovertemplate=f"{_safe(raster.get('layer', ''))} neuron %{{y}}, step %{{x}}<extra>{_safe(arm)}</extra>",
            **_on(panel),
        )
        span = {"range": [-0.5, raster["time_steps"] - 0.5], "showgrid": False}
        figure.update_layout({_axis("xaxis", panel): span})
        figure.update_layout({_axis("yaxis", panel): {"range": [-1, raster["n_neurons"]], "showgrid": False}})

    def _histogram(self, figure: Any, panel: int, arm: str, raster: Mapping[str, Any], colour: str) -> None:
        spikes = [0] * int(raster["n_neurons"])
        for neuron in raster["neurons"]:
            spikes[int(neuron)] += 1
        counts = list(range(max(spikes, default=0) + 1))
        figure.add_scatter(
            x=counts,
            y=[sum(s == count for s in spikes) / max(len(spikes), 1) for count in counts],
            mode="lines+markers",
            line={"color": colour, "width": 1.8, "shape": "hvh"},
            marker={"size": 4},
            name=_safe(arm),
            showlegend=False,
            hovertemplate="%{y:.1%} of neurons fired %{x} times",
            **_on(panel),
        )


@dataclass(frozen=True)
class FiringRates:
    """Mean firing rate of each layer after each task, every arm in its colour.

    The array is `{layer: [rate per task]}`, rates in spikes a neuron and step, in [0, 1].
    """

    array: str = "rates"
    title: str = "Firing rates"
    caption: str = "Spikes per neuron and step in each layer, task after task. Every spike costs energy downstream."

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """One panel of lines a layer."""
        layers = _keys(trial.arrays.get(self.array) for trial in result.trials)
        figure = _panels(layers, {}, height=230, x="tasks learned", y="spikes per step")
        for panel, layer in enumerate(layers):
            _lines(
                figure, panel, result, colours, lambda t, layer=layer: (t.arrays.get(self.array) or {}).get(layer)
            )
            figure.update_layout({_axis("yaxis", panel): {"rangemode": "tozero"}})
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
        layers = _keys(trial.arrays.get(self.array) for trial in result.trials)
        figure = _panels(layers, {}, height=260, x="directions", y="captured energy")
        for panel, layer in enumerate(layers):

            def pick(trial: TrialRecord, which: str = "hebbian", layer: str = layer) -> Series | None:
                spectrum: Series | None = (trial.arrays.get(self.array) or {}).get(layer, {}).get(which)
                return spectrum

            _lines(figure, panel, result, colours, pick)
            optimal = _mean_series([s for trial in result.trials if (s := pick(trial, "optimal")) is not None])
            figure.add_scatter(
                x=list(range(1, len(optimal) + 1)),
                y=optimal,
                mode="lines",
                line={"color": GREY, "dash": "dash", "width": 1.6},
                name="optimum",
                legendgroup="optimum",
                showlegend=panel == 0,
                hovertemplate="%{y:.3f}",
                **_on(panel),
            )
            figure.update_layout({_axis("yaxis", panel): {"tickformat": ".0%", "rangemode": "tozero"}})
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
        known = _keys(trial.cost for trial in result.trials)
        costs = [cost for cost in (self.costs or known) if cost in known]
        figure = _panels([cost.replace("_", " ") for cost in costs], {}, height=60 + 30 * len(result.arms), x="", y="")
        for panel, cost in enumerate(costs):
            for arm in result.arms:
                values = [t.cost[cost] for t in result.trials if t.arm == arm and cost in t.cost]
                if values:
                    figure.add_bar(x=[fmean(values)], y=[_safe(arm)], **_row(panel, arm, colours))
                    figure.add_scatter(x=values, y=[_safe(arm)] * len(values), **_dots(panel, arm, GREY))
            figure.update_layout({_axis("yaxis", panel): _rows_axis(result.arms)})
            figure.update_layout({_axis("xaxis", panel): {"rangemode": "tozero", "tickformat": "~s", "nticks": 5}})
        figure.update_layout(bargap=0.35)
        return figure


@dataclass(frozen=True)
class MetricStrip:
    """A metric of every arm: every seed a dot, the mean a bar across them.

    `metric` names an entry of `TrialRecord.metrics`.
    """

    metric: str
    title: str = ""
    caption: str = "Every dot is a seed; the upright bar is their mean."

    def __post_init__(self) -> None:
        if not self.title:
            object.__setattr__(self, "title", self.metric.replace("_", " "))

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """One panel, one row an arm."""
        values = {a: [v for v in result.metric(a, self.metric) if v is not None] for a in result.arms}
        rows = [arm for arm in result.arms if values[arm]]
        figure = _panels([""] if rows else [], {}, height=80 + 34 * len(rows), x=self.metric, y="")
        for arm in rows:
            figure.add_scatter(x=values[arm], y=[_safe(arm)] * len(values[arm]), **_dots(0, arm, colours[arm]))
            mean = {"symbol": "line-ns", "size": 18, "line": {"width": 2.5, "color": colours[arm]}}
            dots = _dots(0, arm, colours[arm]) | {"marker": mean, "hovertemplate": "mean %{x:.4g}"}
            figure.add_scatter(x=[fmean(values[arm])], y=[_safe(arm)], **dots)
        if rows:
            figure.update_layout({_axis("yaxis", 0): _rows_axis(rows)})
        return figure


def _panels(names: Sequence[str], colours: Mapping[str, str], *, height: int, x: str, y: str) -> Any:
    """Empty figure of small multiples in reading order, titles bound to their axes so that it can be rearranged.

    `layout.meta` tells the page how tall a row is, so that it can set fewer columns on a narrow screen.
    """
    try:
        import plotly.graph_objects as go  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("figures need plotly; pip install 'neuropil[bench]'") from error
    figure = go.Figure()
    columns = _columns(len(names))
    rows = -(-len(names) // columns)
    figure.update_layout(
        template="none",
        height=height * rows + 90,
        margin={"l": 56, "r": 16, "t": 44, "b": 52},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"font": {"size": 13}},
        legend={"orientation": "h", "y": 1, "yref": "container", "yanchor": "top", "x": 0},
        meta={"panels": len(names), "columns": columns, "row": height},
    )
    if names:
        grid = {"rows": rows, "columns": columns, "pattern": "independent", "xgap": 0.22, "ygap": 0.42}
        figure.update_layout(grid=grid)
    for panel, name in enumerate(names):
        axis = {"zeroline": False, "automargin": False, "ticks": "", "nticks": 6}
        last_row = panel + columns >= len(names)
        figure.update_layout(
            {
                _axis("xaxis", panel): {**axis, "title": {"text": _safe(x) if last_row else "", "standoff": 6}},
                _axis("yaxis", panel): {
                    **axis,
                    "title": {"text": _safe(y) if panel % columns == 0 else "", "standoff": 6},
                },
            }
        )
        domain = {"xref": f"{_axis('x', panel)} domain", "yref": f"{_axis('y', panel)} domain"}
        colour = {"font": {"color": colours[name]}} if name in colours else {}
        place = {"x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "showarrow": False}
        figure.add_annotation(text=f"<b>{_safe(name)}</b>", **place, **domain, **colour)
    return figure


def _columns(panels: int) -> int:
    """Columns of a grid of panels: at most four, without a nearly empty last row."""
    return max(panels, 1) if panels <= 4 else 3 if panels in (5, 6, 9) else 4


def _axis(kind: str, panel: int) -> str:
    return kind if panel == 0 else f"{kind}{panel + 1}"


def _on(panel: int) -> dict[str, str]:
    return {"xaxis": _axis("x", panel), "yaxis": _axis("y", panel)}


def _lines(figure: Any, panel: int, result: Result, colours: Mapping[str, str], pick: Pick) -> None:
    """Mean over seeds of every arm, thick, over every seed, thin; points count from 1."""
    in_legend = {trace.legendgroup for trace in figure.data if trace.showlegend}
    for arm in result.arms:
        seeds = [list(s) for t in result.trials if t.arm == arm and (s := pick(t)) is not None]
        mean = _mean_series(seeds)
        if all(value is None for value in mean):
            continue
        common = {"mode": "lines", "legendgroup": _safe(arm), "name": _safe(arm), **_on(panel)}
        if len(seeds) > 1:
            # One trace for all seeds, broken by a gap between them: a sixth of the page's weight.
            x = [value for s in seeds for value in (*range(1, len(s) + 1), None)]
            y = [value for s in seeds for value in (*s, None)]
            thin = {"color": colours[arm], "width": 1}
            figure.add_scatter(x=x, y=y, line=thin, opacity=0.28, hoverinfo="skip", showlegend=False, **common)
        figure.add_scatter(
            x=list(range(1, len(mean) + 1)),
            y=mean,
            line={"color": colours[arm], "width": 2.4},
            showlegend=_safe(arm) not in in_legend,
            hovertemplate="%{y:.3~g}",
            **common,
        )
    figure.update_layout(hovermode="x unified")


def _heat_map(figure: Any, panel: int, arm: str, matrix: list[list[float | None]]) -> None:
    side = list(range(1, len(matrix) + 1))
    figure.add_heatmap(
        z=matrix,
        x=list(range(1, max(map(len, matrix), default=0) + 1)),
        y=side,
        coloraxis="coloraxis",
        xgap=1.5,
        ygap=1.5,
        hoverongaps=False,
        hovertemplate=f"task %{{x}} after task %{{y}}: %{{z:.1%}}<extra>{_safe(arm)}</extra>",
        **_on(panel),
    )


def _row(panel: int, arm: str, colours: Mapping[str, str]) -> dict[str, Any]:
    bar = {"marker": {"color": colours[arm], "line": {"width": 0}}, "opacity": 0.85}
    return {**bar, "orientation": "h", "showlegend": False, "hovertemplate": "%{x:.4~s}<extra></extra>", **_on(panel)}


def _dots(panel: int, arm: str, colour: str) -> dict[str, Any]:
    return {
        "mode": "markers",
        "marker": {"size": 7, "color": colour, "opacity": 0.75},
        "name": _safe(arm),
        "showlegend": False,
        "hovertemplate": "%{x:.4g}",
        **_on(panel),
    }


def _rows_axis(arms: Sequence[str]) -> dict[str, Any]:
    names = [_safe(arm) for arm in reversed(arms)]
    order = {"type": "category", "categoryorder": "array", "categoryarray": names}
    return {**order, "automargin": True, "showgrid": False}


def _safe(text: object) -> str:
    """Text that plotly, which reads a subset of HTML, shows as it is written."""
    return html.escape(str(text))


def _arms_with(result: Result, pick: Callable[[TrialRecord], Any]) -> list[str]:
    having = {trial.arm for trial in result.trials if pick(trial)}
    return [arm for arm in result.arms if arm in having]


def _trials(result: Result, arm: str, array: str) -> list[TrialRecord]:
    return [trial for trial in result.trials if trial.arm == arm and trial.arrays.get(array)]


def _keys(mappings: Iterable[Mapping[str, Any] | None]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping or ()))


def _evenly(n: int, most: int) -> list[int]:
    return list(range(n)) if n <= most else [round(i * (n - 1) / (most - 1)) for i in range(most)]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _mean_series(series: Sequence[Series]) -> list[float | None]:
    return [_mean(column) for column in _padded_columns(series)]


def _padded_columns(series: Sequence[Series]) -> Iterator[list[float | None]]:
    for i in range(max(map(len, series), default=0)):
        yield [s[i] if i < len(s) else None for s in series]


def _mean_matrix(matrices: Sequence[Sequence[Series]]) -> list[list[float | None]]:
    rows = max(map(len, matrices), default=0)
    return [_mean_series([matrix[i] for matrix in matrices if i < len(matrix)]) for i in range(rows)]
