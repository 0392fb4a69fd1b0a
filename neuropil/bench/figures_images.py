"""Figures of images that a trial picked out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuropil.bench.panels import arms_with, axis, on, panels, trials_with
from neuropil.bench.result import Result

GREYS = [[0.0, "#f4f1ea"], [1.0, "#1d2b36"]]


@dataclass(frozen=True)
class ImageRows:
    """Rows of greyscale images, one panel an arm, of the first seed that has them.

    The array is `{row name: [image, ...]}`, an image `[height][width]` of numbers, dark where they are high; all of
    one size. Rows are drawn from top to bottom.
    """

    array: str = "images"
    title: str = "Images"
    caption: str = "Picked out by each arm, first seed."

    def draw(self, result: Result, colours: Mapping[str, str]) -> Any:
        """One picture an arm, its rows named at the side."""
        arms = arms_with(result, lambda trial: trial.arrays.get(self.array))
        found = {arm: trials_with(result, arm, self.array)[0].arrays[self.array] for arm in arms}
        most = max((len(rows) for rows in found.values()), default=1)
        figure = panels(arms, colours, height=40 + 62 * most, x="", y="")
        for panel, arm in enumerate(arms):
            picture, places = _picture(found[arm])
            figure.add_heatmap(z=picture, colorscale=GREYS, showscale=False, hoverinfo="skip", **on(panel))
            names = {"tickmode": "array", "tickvals": places, "ticktext": list(found[arm]), "tickangle": -90}
            plain = {"showgrid": False, "zeroline": False}
            figure.update_layout({axis("yaxis", panel): {**plain, **names, "autorange": "reversed"}})
            figure.update_layout({axis("xaxis", panel): {**plain, "showticklabels": False}})
        return figure


def _picture(rows: Mapping[str, Any]) -> tuple[list[list[float | None]], list[float]]:
    """Images side by side with a gap of one pixel, and where each row's middle is."""
    width = max(sum(len(image[0]) + 1 for image in images) for images in rows.values())
    picture: list[list[float | None]] = []
    places = []
    for images in rows.values():
        height = max(len(image) for image in images)
        places.append(len(picture) + height / 2)
        for y in range(height):
            line: list[float | None] = []
            for image in images:
                line += [*map(float, image[y]), None]
            picture.append(line + [None] * (width - len(line)))
        picture.append([None] * width)
    return picture, places
