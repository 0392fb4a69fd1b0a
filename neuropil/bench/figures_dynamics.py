"""Figures of how neurons move: membranes over time, and two state variables against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuropil.bench.figures import GREY
from neuropil.bench.panels import arms_with, axis, on, panels, safe, trials_with
from neuropil.bench.result import Result

HUES = ("#2f7f86", "#b5563c", "#7a6a9b", "#8a8f3c", "#3f6fa8", "#a0527a")
MAX_TRACES = 6  # drawn of an arm


@dataclass(frozen=True)
class MembraneTraces:
    """Membranes of a few neurons of one sample, one panel an arm, their spikes above them.

    The array is `{"neurons": {name: [...]}, "spikes": {name: [step, ...]}, "threshold": number or None}`; the first
    seed that has it is drawn.
    """

    array: str = "membranes"
    title: str = "Membranes"
    caption: str = "A few neurons of one sample. A tick above is a spike, the dashed line the threshold."
    unit: str = ""

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """One panel an arm, a line a neuron."""
        arms = arms_with(result, lambda trial: trial.arrays.get(self.array))
        label = f"membrane, {self.unit}" if self.unit else "membrane"
        figure = panels(arms, colours, height=240, x="time step", y=label)
        for panel, arm in enumerate(arms):
            found = trials_with(result, arm, self.array)[0].arrays[self.array]
            shown = list(found["neurons"].items())[:MAX_TRACES]
            top = max((value for _, trace in shown for value in trace), default=0.0)
            for index, (name, trace) in enumerate(shown):
                hue, common = HUES[index % len(HUES)], {"showlegend": False, "name": safe(name), **on(panel)}
                line = {"color": hue, "width": 1.2}
                figure.add_scatter(x=list(range(len(trace))), y=trace, mode="lines", line=line, **common)
                at = found.get("spikes", {}).get(name, [])
                if at:
                    tick = {"symbol": "line-ns-open", "size": 8, "color": hue}
                    figure.add_scatter(x=at, y=[top] * len(at), mode="markers", marker=tick, **common)
            if found.get("threshold") is not None:
                longest = max((len(trace) for _, trace in shown), default=1)
                figure.add_scatter(
                    x=[0, longest - 1], y=[found["threshold"]] * 2, mode="lines", showlegend=False, name="threshold",
                    line={"color": GREY, "dash": "dash", "width": 1.2}, **on(panel),
                )  # fmt: skip
        return figure


@dataclass(frozen=True)
class PhasePortrait:
    """Two state variables against each other, one panel an arm; each trajectory begins at its dot.

    The array is `{"x": [[...], ...], "y": [[...], ...], "nullclines": {name: {"x": [...], "y": [...]}}}`, a list a
    trajectory; the first seed that has it is drawn.
    """

    array: str = "portrait"
    title: str = "Phase portrait"
    caption: str = "Trajectories, each from its dot on; dashed, where one of the two does not change."
    x: str = "membrane"
    y: str = "recovery"

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """One panel an arm, a line a trajectory."""
        arms = arms_with(result, lambda trial: trial.arrays.get(self.array))
        figure = panels(arms, colours, height=320, x=self.x, y=self.y)
        for panel, arm in enumerate(arms):
            found = trials_with(result, arm, self.array)[0].arrays[self.array]
            for name, line in found.get("nullclines", {}).items():
                figure.add_scatter(
                    x=line["x"], y=line["y"], mode="lines", name=safe(name), showlegend=panel == 0,
                    line={"color": GREY, "dash": "dash", "width": 1.2}, **on(panel),
                )  # fmt: skip
            for index, (across, up) in enumerate(zip(found["x"], found["y"], strict=True)):
                hue, common = HUES[index % len(HUES)], {"showlegend": False, **on(panel)}
                figure.add_scatter(x=across, y=up, mode="lines", line={"color": hue, "width": 1.3}, **common)
                figure.add_scatter(
                    x=across[:1], y=up[:1], mode="markers", marker={"color": hue, "size": 7}, **common
                )
            for each in ("xaxis", "yaxis"):
                figure.update_layout({axis(each, panel): {"zeroline": False}})
        return figure
