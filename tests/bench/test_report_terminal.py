"""Tables and live progress in the terminal, seen and not seen by a person."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from neuropil.bench import Event, Failure
from neuropil.bench.report import LiveProgress, print_result
from neuropil.bench.report.summary import number
from tests.bench.report_example import example


def printed(result, width=110):
    console = Console(file=io.StringIO(), width=width)
    print_result(result, console)
    return console.file.getvalue()


def test_tables_hold_claims_metrics_and_cost():
    run = example()
    text = printed(run)
    assert "holds" in text
    assert "(primary)" in text
    for arm in run.arms:
        mean = sum(run.metric(arm, "acc")) / len(run.seeds)
        assert f"{number(mean, 'acc', unit=False)} ±" in text
    assert "synaptic operations" in text
    assert "5 seeds, laptop scale" in text


@pytest.mark.parametrize("width", [60, 80])
def test_numbers_are_whole_in_a_narrow_terminal(width):
    run = example()
    many = tuple(
        replace(t, metrics={**t.metrics, **{f"another_metric_{i}": 0.123 * i for i in range(9)}})
        for t in run.trials
    )
    text = printed(replace(run, trials=many), width)
    assert "86.4 ± 0.2 %" in text
    assert "another_metric_8" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_smoke_scale_and_one_seed():
    text = printed(example(("hlop", "finetune"), (0,), "smoke"))
    assert "not judged at smoke scale" in text
    assert "86.1 % " in text  # no interval
    assert "holds" not in text


def test_names_are_not_markup():
    run = example(("hlop",), (0,))
    arm = "[red]x[/red]"
    renamed = replace(
        run,
        arms=(arm,),
        trials=(replace(run.trials[0], arm=arm),),
        failures=(Failure(arm, 1, "[bold]no[/nothing]"),),
    )
    text = printed(renamed)
    assert arm in text
    assert "[bold]no[/nothing]" in text


EVENTS = (
    Event("planned", 0, 4, left=8.0),
    Event("started", 0, 4, "hlop", 0),
    Event("cached", 1, 4, "finetune", 0),
    Event("finished", 2, 4, "hlop", 0, seconds=2.0, left=4.0),
    Event("progress", 2, 4, left=3.0),
    Event("failed", 3, 4, "hlop", 1, message="loss [is] not finite"),
    Event("warning", 3, 4, message="a damaged file was set aside"),
    Event("finished", 4, 4, "finetune", 1, seconds=61.0, left=0.0),
)


def test_plain_lines_when_nobody_is_looking():
    console = Console(file=io.StringIO(), width=40)
    with LiveProgress(("hlop", "finetune"), console) as progress:
        for event in EVENTS:
            progress(event)
    assert console.file.getvalue().splitlines() == [
        "4 trials, about 8.0 s",
        "[1/4] finetune seed 0: known",
        "[2/4] hlop seed 0: 2.0 s, 4.0 s left",
        "[3/4] hlop seed 1 failed: loss [is] not finite",
        "warning: a damaged file was set aside",
        "[4/4] finetune seed 1: 1 min 1 s",
    ]


def test_bars_per_arm_in_a_terminal():
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with LiveProgress(("hlop", "finetune"), console) as progress:
        for event in EVENTS:
            progress(event)
    text = console.file.getvalue()
    assert "loss [is] not finite" in text
    last = text[text.rindex("hlop ") :]
    assert last.count("2/2") == 2
    assert "4/4" in last


def test_bars_survive_arms_that_were_not_announced_and_an_error_inside():
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with pytest.raises(KeyboardInterrupt), LiveProgress((), console) as progress:
        progress(Event("planned", 0, 1))
        progress(Event("finished", 1, 1, "hlop", 0, seconds=1.0))
        raise KeyboardInterrupt
    assert "1/1" in console.file.getvalue()
