"""Maps: numbers over two axes, as colours, in their own unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuropil.bench.figures import COLOUR_BAR, GREY, SEQUENTIAL
from neuropil.bench.panels import arms_with, axis, heat_map, panels, trials_with
from neuropil.bench.result import Result

MAX_MAPS = 8  # drawn of an arm
_SIGNED = [[0.0, "#8c3b2e"], [0.5, "#f1ead9"], [1.0, "#173f56"]]


@dataclass(frozen=True)
class Maps:
    """Matrices by name as heat maps on one colour scale, from the first seed that has them.

    The array is `{name: [row][column]}`, any numbers; negative ones get another colour.
    """

    array: str
    title: str
    caption: str
    x: str
    y: str

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """Heat maps side by side."""
        shown = [
            (arm, name, matrix)
            for arm in arms_with(result, lambda trial: trial.arrays.get(self.array))
            for name, matrix in list(trials_with(result, arm, self.array)[0].arrays[self.array].items())[
                :MAX_MAPS
            ]
        ]
        titles = [name for _, name, _ in shown]
        figure = panels(titles, dict.fromkeys(titles, GREY) | dict(colours), height=230, x=self.x, y=self.y)
        values = [value for _, _, matrix in shown for row in matrix for value in row if value is not None]
        for panel, (arm, _, matrix) in enumerate(shown):
            heat_map(figure, panel, arm, matrix)
            figure.data[-1].hovertemplate = f"{self.x} %{{x}}, {self.y} %{{y}}: %{{z:.3g}}<extra></extra>"
            figure.update_layout({axis("yaxis", panel): {"autorange": "reversed", "showgrid": False}})
            figure.update_layout({axis("xaxis", panel): {"showgrid": False}})
        low, high = min(values, default=0), max(values, default=1)
        if low < 0:
            low, high = -max(-low, high), max(-low, high)
        bar = COLOUR_BAR | {"tickformat": "~g"}
        scale = _SIGNED if low < 0 else SEQUENTIAL
        figure.update_layout(coloraxis={"colorscale": scale, "cmin": low, "cmax": high, "colorbar": bar})
        return figure
