"""Every figure draws what the result holds, and copes with what it lacks."""

import json
from dataclasses import replace

import pytest

from neuropil.bench.figures import (
    AccuracyMatrix,
    CostBars,
    FiringRates,
    LearningCurves,
    MetricStrip,
    Spectra,
    SpikeRaster,
    TaskCurves,
)
from neuropil.bench.figures_images import ImageRows
from neuropil.bench.figures_trade import Matrices, TradeOff, frontier
from neuropil.bench.panels import evenly, mean_matrix, mean_series
from tests.bench.report_example import LOSS, example

COLOURS = dict(zip(LOSS, ("#111111", "#222222", "#333333", "#444444", "#555555", "#666666"), strict=True))
ALL = (
    AccuracyMatrix(),
    TaskCurves(),
    LearningCurves("loss"),
    SpikeRaster(),
    FiringRates(),
    Spectra(),
    CostBars(),
    MetricStrip("acc"),
    TradeOff("acc", ("seconds", "parameters")),
    Matrices("accuracy_matrix", "Matrix", "A matrix.", "column", "row"),
)
named = pytest.mark.parametrize("figure", ALL, ids=lambda figure: type(figure).__name__)


def with_array(result, name, value):
    trials = tuple(replace(trial, arrays={**trial.arrays, name: value}) for trial in result.trials)
    return replace(result, trials=trials)


@named
def test_a_full_run_is_drawn_and_every_trace_has_its_panel(figure):
    drawn = figure.draw(example(), COLOURS)
    assert drawn.data
    panels = drawn.layout.meta["panels"]
    assert panels <= drawn.layout.grid.rows * drawn.layout.grid.columns
    axes = {"x" if i == 0 else f"x{i + 1}" for i in range(panels)}
    assert {trace.xaxis for trace in drawn.data} == axes
    json.loads(drawn.to_json())


@named
def test_one_seed_and_one_arm_are_enough(figure):
    drawn = figure.draw(example(("hlop",), (3,)), COLOURS)
    assert drawn.data
    assert not drawn.layout.updatemenus


@named
def test_nothing_recorded_draws_nothing(figure):
    bare = example(("hlop", "gpm"), (0,))
    trials = tuple(replace(trial, arrays={}, curves={}, metrics={}, cost={}) for trial in bare.trials)
    assert not figure.draw(replace(bare, trials=trials), COLOURS).data
    assert not figure.draw(replace(bare, trials=()), COLOURS).data


def test_accuracy_matrix_is_the_mean_over_seeds_and_can_show_each():
    run = example(("hlop", "joint"), (0, 1))
    first, second = (trial.arrays["accuracy_matrix"] for trial in run.trials[:2])
    drawn = AccuracyMatrix().draw(run, COLOURS)
    shown = drawn.data[0].z
    assert shown[7][0] == pytest.approx((first[7][0] + second[7][0]) / 2)
    assert shown[0][5] is None
    menu = drawn.layout.updatemenus[0]
    assert [button.label for button in menu.buttons] == ["mean over seeds", "seed 0", "seed 1"]
    assert menu.buttons[2].args[0]["z"][0][7][0] == pytest.approx(second[7][0])


def test_colour_scale_starts_below_what_was_learned_not_at_chance():
    run = with_array(example(("hlop",), (0,)), "accuracy_matrix", [[0.9, 0.1], [0.72, 0.9]])
    assert AccuracyMatrix().draw(run, COLOURS).layout.coloraxis.cmin == pytest.approx(0.6)


def test_task_curves_begin_when_the_task_was_learned():
    run = with_array(example(("hlop",), (0,)), "accuracy_matrix", [[0.9, 0.1], [0.7, 0.8]])
    drawn = TaskCurves().draw(run, COLOURS)
    assert [list(trace.y) for trace in drawn.data] == [[0.9, 0.7], [None, 0.8]]
    assert drawn.data[0].mode == "lines"
    assert drawn.data[1].mode == "markers"  # one point, which a line would not show


def test_a_long_stream_shows_eight_tasks_with_the_first_and_the_last():
    run = with_array(example(("hlop",), (0,)), "accuracy_matrix", [[0.5] * 30 for _ in range(30)])
    titles = [note.text for note in TaskCurves().draw(run, COLOURS).layout.annotations]
    assert len(titles) == 8
    assert (titles[0], titles[-1]) == ("<b>task 1</b>", "<b>task 30</b>")


def test_every_seed_is_drawn_beside_the_mean():
    run = example(("hlop",), (0, 1))
    thin, mean = LearningCurves("loss").draw(run, COLOURS).data
    a, b = (trial.curves["loss"] for trial in run.trials)
    assert list(thin.y) == [*a, None, *b, None]
    assert mean.y == pytest.approx([(u + v) / 2 for u, v in zip(a, b, strict=True)])
    assert mean.line.color == COLOURS["hlop"]


def test_raster_holds_every_spike_and_the_histogram_every_neuron():
    raster = {"layer": "h", "times": [0, 2, 2], "neurons": [1, 0, 1], "time_steps": 3, "n_neurons": 4}
    spikes, histogram = (
        SpikeRaster().draw(with_array(example(("hlop",), (0,)), "raster", raster), COLOURS).data
    )
    assert list(zip(spikes.x, spikes.y, strict=True)) == [(0, 1), (2, 0), (2, 1)]
    assert list(histogram.x) == [0, 1, 2]
    assert list(histogram.y) == [0.5, 0.25, 0.25]


def test_a_dense_raster_is_thinned_by_neuron():
    neurons = [n for n in range(200) for _ in range(100)]
    raster = {
        "layer": "h",
        "times": list(range(100)) * 200,
        "neurons": neurons,
        "time_steps": 100,
        "n_neurons": 200,
    }
    spikes = SpikeRaster().draw(with_array(example(("hlop",), (0,)), "raster", raster), COLOURS).data[0]
    assert len(spikes.x) == 4000
    assert len(set(spikes.y)) * 100 == 4000


def test_spectra_leave_out_arms_without_a_subspace():
    drawn = Spectra().draw(example(("hlop", "finetune"), (0, 1)), COLOURS)
    assert {trace.name for trace in drawn.data} == {"hlop", "optimum"}


def test_cost_bars_are_means_and_unknown_costs_are_left_out():
    run = example(("hlop",), (0, 1))
    seconds = [trial.cost["seconds"] for trial in run.trials]
    bar, dots = CostBars(("seconds", "joules")).draw(run, COLOURS).data
    assert bar.x[0] == pytest.approx(sum(seconds) / 2)
    assert list(dots.x) == seconds


def test_names_reach_plotly_as_text_not_as_its_markup():
    run = example(("hlop",), (0,))
    arm = '<a href="javascript:alert(1)">x</a>'
    hostile = replace(run, arms=(arm,), trials=(replace(run.trials[0], arm=arm),))
    for figure in ALL:
        assert "<a" not in figure.draw(hostile, {arm: "#000000"}).to_json().replace("\\u003c", "<")


def test_means_skip_what_is_missing():
    assert mean_series([[1.0, None, 3.0], [3.0, None]]) == [2.0, None, 3.0]
    assert mean_matrix([[[1.0], [2.0, 4.0]], [[3.0]]]) == [[2.0], [2.0, 4.0]]
    assert mean_series([]) == []
    assert evenly(3, 8) == [0, 1, 2]


def test_image_rows_lie_side_by_side_with_a_gap_and_are_named():
    rows = {"high": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]], "low": [[[9, 9], [9, 9]]]}
    drawn = ImageRows().draw(with_array(example(("hlop",), (0,)), "images", rows), COLOURS)
    assert [list(line) for line in drawn.data[0].z] == [
        [1, 2, None, 5, 6, None], [3, 4, None, 7, 8, None], [None] * 6,
        [9, 9, None, None, None, None], [9, 9, None, None, None, None], [None] * 6,
    ]  # fmt: skip
    assert list(drawn.layout.yaxis.ticktext) == ["high", "low"]
    assert not ImageRows().draw(example(("hlop",), (0,)), COLOURS).data


def test_the_frontier_joins_what_no_other_beats_in_both():
    points = {"a": (1.0, 0.5), "b": (2.0, 0.4), "c": (3.0, 0.9), "d": (3.0, 0.8), "e": (9.0, 0.9)}
    assert frontier(points) == ["a", "c"]


def test_trade_off_has_a_point_an_arm_and_leaves_out_costs_that_are_not_there():
    run = example(("hlop", "joint"), (0, 1))
    drawn = TradeOff("acc", ("nothing", "seconds")).draw(run, COLOURS)
    assert drawn.layout.meta["panels"] == 1
    assert [trace.text[0] for trace in drawn.data[1:]] == ["hlop", "joint"]
    values = [t.metrics["acc"] for t in run.trials if t.arm == "hlop"]
    assert drawn.data[1].y[0] == pytest.approx(sum(values) / 2)
