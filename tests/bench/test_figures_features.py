from __future__ import annotations

from dataclasses import replace

from neuropil.bench.figures_features import FeatureMap
from tests.bench.report_example import example

FOUND = {"x": [0.0, 1.0, 2.0], "y": [0.0, 1.0, 0.0], "label": [1, 0, 1], "prototypes": [[1.0, 1.0], None]}


def test_each_class_has_its_dots_and_its_prototype() -> None:
    result = example(("hlop",), (0,))
    colours = {"hlop": "#111111"}
    assert not FeatureMap().draw(result, colours).data
    shown = replace(result, trials=tuple(replace(t, arrays={"features": FOUND}) for t in result.trials))
    first, cross, second = FeatureMap(names=("a",)).draw(shown, colours).data
    assert (first.name, list(first.x), list(cross.x)) == ("a", [1.0], [1.0])
    assert (second.name, list(second.x), cross.marker.symbol) == ("1", [0.0, 2.0], "x")
