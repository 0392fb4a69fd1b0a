"""Small multiples for the bench's figures: a grid of panels, lines over seeds, dots and bars by arm."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from statistics import fmean
from typing import Any

from neuropil.bench.result import Result, TrialRecord
from neuropil.errors import MissingExtraError

Series = Sequence[float | None]
Pick = Callable[[TrialRecord], Series | None]


def panels(names: Sequence[str], colours: Mapping[str, str], *, height: int, x: str, y: str) -> Any:
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
        meta={"panels": len(names), "columns": columns, "row": height, "x": safe(x), "y": safe(y)},
    )
    if names:
        grid = {"rows": rows, "columns": columns, "pattern": "independent", "xgap": 0.22, "ygap": 0.42}
        figure.update_layout(grid=grid)
    for panel, name in enumerate(names):
        plain = {"zeroline": False, "automargin": False, "ticks": "", "nticks": 6}
        last_row = panel + columns >= len(names)
        figure.update_layout(
            {
                axis("xaxis", panel): {
                    **plain,
                    "title": {"text": safe(x) if last_row else "", "standoff": 6},
                },
                axis("yaxis", panel): {
                    **plain,
                    "title": {"text": safe(y) if panel % columns == 0 else "", "standoff": 6},
                },
            }
        )
        domain = {"xref": f"{axis('x', panel)} domain", "yref": f"{axis('y', panel)} domain"}
        dot = f'<span style="color:{colours[name]}">●</span> ' if name in colours else ""
        place = {"x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "showarrow": False}
        figure.add_annotation(text=f"{dot}<b>{safe(name)}</b>", **place, **domain)
    return figure


def _columns(panels: int) -> int:
    """Columns of a grid of panels: at most four, without a nearly empty last row."""
    return max(panels, 1) if panels <= 4 else 3 if panels in (5, 6, 9) else 4


def axis(kind: str, panel: int) -> str:
    """Name of a panel's axis in plotly: `axis("x", 2)` is `x3`."""
    return kind if panel == 0 else f"{kind}{panel + 1}"


def on(panel: int) -> dict[str, str]:
    """Puts a trace on a panel."""
    return {"xaxis": axis("x", panel), "yaxis": axis("y", panel)}


def lines(figure: Any, panel: int, result: Result, colours: Mapping[str, str], pick: Pick) -> None:
    """Mean over seeds of every arm, thick, over every seed, thin; points count from 1."""
    in_legend = {trace.legendgroup for trace in figure.data if trace.showlegend}
    for arm in result.arms:
        seeds = [list(s) for t in result.trials if t.arm == arm and (s := pick(t)) is not None]
        mean = mean_series(seeds)
        if all(value is None for value in mean):
            continue
        common = {"mode": "lines", "legendgroup": safe(arm), "name": safe(arm), **on(panel)}
        if len(seeds) > 1:
            # One trace for all seeds, broken by a gap between them: a sixth of the page's weight.
            x = [value for s in seeds for value in (*range(1, len(s) + 1), None)]
            y = [value for s in seeds for value in (*s, None)]
            thin = {"color": colours[arm], "width": 1}
            figure.add_scatter(
                x=x, y=y, line=thin, opacity=0.28, hoverinfo="skip", showlegend=False, **common
            )
        if sum(value is not None for value in mean) == 1:
            common["mode"] = "markers"  # a line of one point is invisible
        figure.add_scatter(
            x=list(range(1, len(mean) + 1)),
            y=mean,
            line={"color": colours[arm], "width": 2.4},
            marker={"size": 6, "color": colours[arm]},
            showlegend=safe(arm) not in in_legend,
            hovertemplate="%{y:.3~g}",
            **common,
        )
        if len(mean) <= 6:
            figure.update_layout({axis("xaxis", panel): {"dtick": 1}})
    figure.update_layout(hovermode="x unified")


def heat_map(figure: Any, panel: int, arm: str, matrix: list[list[float | None]]) -> None:
    """Accuracy of every task after every task, on the shared colour axis."""
    side = list(range(1, len(matrix) + 1))
    figure.add_heatmap(
        z=matrix,
        x=list(range(1, max(map(len, matrix), default=0) + 1)),
        y=side,
        coloraxis="coloraxis",
        xgap=1.5,
        ygap=1.5,
        hoverongaps=False,
        hovertemplate=f"task %{{x}} after task %{{y}}: %{{z:.1%}}<extra>{safe(arm)}</extra>",
        **on(panel),
    )


def bar(panel: int, arm: str, colours: Mapping[str, str]) -> dict[str, Any]:
    """Look of an arm's bar."""
    bar = {"marker": {"color": colours[arm], "line": {"width": 0}}, "opacity": 0.85}
    return {
        **bar,
        "orientation": "h",
        "showlegend": False,
        "hovertemplate": "%{x:.4~s}<extra></extra>",
        **on(panel),
    }


def dots(panel: int, arm: str, colour: str) -> dict[str, Any]:
    """Look of an arm's seeds as dots."""
    return {
        "mode": "markers",
        "marker": {"size": 7, "color": colour, "opacity": 0.75},
        "name": safe(arm),
        "showlegend": False,
        "hovertemplate": "%{x:.4g}",
        **on(panel),
    }


def rows_axis(arms: Sequence[str]) -> dict[str, Any]:
    """Vertical axis with one row an arm, the first on top."""
    names = [safe(arm) for arm in reversed(arms)]
    order = {"type": "category", "categoryorder": "array", "categoryarray": names, "dtick": 1}
    return {**order, "automargin": True, "showgrid": False}


def safe(text: object) -> str:
    """Text that plotly, which reads a subset of HTML, shows as it is written."""
    return html.escape(str(text))


def arms_with(result: Result, pick: Callable[[TrialRecord], Any]) -> list[str]:
    """Arms of which some trial has something to show."""
    having = {trial.arm for trial in result.trials if pick(trial)}
    return [arm for arm in result.arms if arm in having]


def trials_with(result: Result, arm: str, array: str) -> list[TrialRecord]:
    """Trials of an arm that carry an array."""
    return [trial for trial in result.trials if trial.arm == arm and trial.arrays.get(array)]


def keys(mappings: Iterable[Mapping[str, Any] | None]) -> list[str]:
    """Keys of all mappings, in order of first appearance."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping or ()))


def layer_names(layers: Iterable[str]) -> list[str]:
    """Titles of layers; a bare number, as `torch.nn.Sequential` names its parts, is told to be a layer."""
    return [f"layer {name}" if name.isdigit() else name for name in layers]


def evenly(n: int, most: int) -> list[int]:
    """Indices below `n`, at most `most` of them, first and last included."""
    return list(range(n)) if n <= most else [round(i * (n - 1) / (most - 1)) for i in range(most)]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def mean_series(series: Sequence[Series]) -> list[float | None]:
    """Mean at each position over the series that have a value there."""
    return [_mean(column) for column in zip_longest(*series)]


def mean_matrix(matrices: Sequence[Sequence[Series]]) -> list[list[float | None]]:
    """Mean of each cell over the matrices that have a value there."""
    rows = max(map(len, matrices), default=0)
    return [mean_series([matrix[i] for matrix in matrices if i < len(matrix)]) for i in range(rows)]
