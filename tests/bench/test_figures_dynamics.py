from __future__ import annotations

from dataclasses import replace

from neuropil.bench.figures_dynamics import MembraneTraces, PhasePortrait
from tests.bench.report_example import example

MEMBRANES = {"neurons": {"a": [0.0, 0.5, 1.2], "b": [0.1, 0.2, 0.3]}, "spikes": {"a": [2]}, "threshold": 1.0}
PORTRAIT = {
    "x": [[0.0, 1.0], [2.0, 3.0]], "y": [[1.0, 0.0], [4.0, 5.0]], "nullclines": {"v": {"x": [0, 1], "y": [0, 1]}},
}  # fmt: skip


def drawn(figure: MembraneTraces | PhasePortrait, array: dict[str, object]) -> tuple[object, ...]:
    result = example(("hlop",), (0,))
    colours = {"hlop": "#111111"}
    assert not figure.draw(result, colours).data
    shown = replace(result, trials=tuple(replace(t, arrays={figure.array: array}) for t in result.trials))
    return tuple(figure.draw(shown, colours).data)


def test_each_membrane_has_its_line_its_spikes_and_the_threshold() -> None:
    a, spikes, b, threshold = drawn(MembraneTraces(unit="mV"), MEMBRANES)
    assert (a.name, list(a.y), list(spikes.x), list(spikes.y)) == ("a", [0.0, 0.5, 1.2], [2], [1.2])
    assert (b.name, list(b.y)) == ("b", [0.1, 0.2, 0.3])
    assert (list(threshold.x), list(threshold.y)) == ([0, 2], [1.0, 1.0])


def test_each_trajectory_has_its_line_and_its_start() -> None:
    nullcline, first, start, second, _ = drawn(PhasePortrait(), PORTRAIT)
    assert (nullcline.name, nullcline.line.dash) == ("v", "dash")
    assert (list(first.x), list(start.x), list(start.y)) == ([0.0, 1.0], [0.0], [1.0])
    assert list(second.y) == [4.0, 5.0]
