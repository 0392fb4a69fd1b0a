"""A figure of features in the plane, for studies of what a network makes of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuropil.bench.panels import arms_with, axis, on, panels, safe, trials_with
from neuropil.bench.result import Result

HUES = (
    "#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#eeca3b", "#ff9da6", "#79706e",
)  # fmt: skip


@dataclass(frozen=True)
class FeatureMap:
    """Samples as dots in the plane, coloured by class, with each class's prototype; one panel an arm.

    The array is `{"x": [...], "y": [...], "label": [...], "prototypes": [[x, y], ...]}`, prototypes by class, None
    where there is none. The first seed that has it is drawn.
    """

    array: str = "features"
    title: str = "What the classes look like inside"
    caption: str = (
        "A dot is a test image, its colour its class. A cross is where that class is believed to be."
    )
    names: tuple[str, ...] = ()

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """One panel an arm, a trace a class."""
        arms = arms_with(result, lambda trial: trial.arrays.get(self.array))
        figure = panels(arms, colours, height=300, x="", y="")
        for panel, arm in enumerate(arms):
            found = trials_with(result, arm, self.array)[0].arrays[self.array]
            for label in sorted(set(found["label"])):
                self._class(figure, panel, found, int(label))
            for each in ("xaxis", "yaxis"):
                figure.update_layout({axis(each, panel): {"showticklabels": False, "showgrid": False}})
        return figure

    def _class(self, figure: Any, panel: int, found: Mapping[str, Any], label: int) -> None:
        hue = HUES[label % len(HUES)]
        name = safe(self.names[label] if label < len(self.names) else label)
        at = [i for i, each in enumerate(found["label"]) if each == label]
        common = {"mode": "markers", "name": name, "legendgroup": name, "hovertemplate": name, **on(panel)}
        figure.add_scatter(
            x=[found["x"][i] for i in at], y=[found["y"][i] for i in at], showlegend=panel == 0,
            marker={"size": 4, "color": hue, "opacity": 0.6}, **common,
        )  # fmt: skip
        prototype = found["prototypes"][label] if label < len(found["prototypes"]) else None
        if prototype is not None:
            cross = {"symbol": "x", "size": 11, "color": hue, "line": {"width": 1.5, "color": "#1d2b36"}}
            figure.add_scatter(x=[prototype[0]], y=[prototype[1]], showlegend=False, marker=cross, **common)
