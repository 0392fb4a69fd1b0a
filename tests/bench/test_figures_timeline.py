from __future__ import annotations

from dataclasses import replace

from neuropil.bench.figures_timeline import Timeline
from tests.bench.report_example import example

LIFE = [
    {"name": "task 1", "accuracy": [0.9, None], "event": ""},
    {"name": "task 2", "accuracy": [0.8, 0.7], "event": "killed"},
]


def test_nothing_is_drawn_of_nothing() -> None:
    assert not Timeline().draw(example(("hlop",), (0,)), {"hlop": "#111111"}).data


def test_every_task_its_mean_and_each_event_have_a_line() -> None:
    result = example(("hlop", "finetune"), (0, 1))
    trials = tuple(replace(trial, arrays={"timeline": LIFE}) for trial in result.trials)
    figure = Timeline().draw(replace(result, trials=trials), {"hlop": "#111111", "finetune": "#222222"})
    first, second, mean, event = figure.data[:4]
    assert (list(first.y), list(second.y)) == ([0.9, 0.8], [None, 0.7])
    assert list(mean.y) == [0.9, 0.75]
    assert (list(event.x), list(event.text)) == ([1.5, 1.5], ["", "killed"])
    assert list(figure.layout.xaxis.ticktext) == ["task 1", "task 2"]
    assert [trace.visible for trace in figure.data] == [True] * 4 + [False] * 4
    choice = figure.layout.updatemenus[0].buttons[1]
    assert (choice.label, choice.args[0]["visible"]) == ("finetune", [False] * 4 + [True] * 4)
