from __future__ import annotations

from dataclasses import replace

from neuropil.bench.figures_images import Mosaic
from tests.bench.report_example import example

COLOURS = {"hlop": "#111111", "gpm": "#222222"}


def test_each_arm_that_has_a_picture_shows_it() -> None:
    result = example(("hlop", "gpm"), (0, 1))
    figure = Mosaic("picture", title="t", caption="c")
    assert not figure.draw(result, COLOURS).data
    trials = tuple(
        replace(trial, arrays={"picture": [[0, 1], [2, trial.seed]]}) if trial.arm == "gpm" else trial
        for trial in result.trials
    )
    (drawn,) = figure.draw(replace(result, trials=trials), COLOURS).data
    assert [list(row) for row in drawn.z] == [[0, 1], [2, 0]]
