"""`neuropil runs` and `neuropil plan`: what they print and keep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neuropil.bench import catalogue, runner
from tests.cli.conftest import Call


@pytest.fixture
def two(bench: Path) -> tuple[str, str]:
    study = catalogue.load_study("alpha")
    runner.run(study, jobs=0, out="runs/one")
    runner.run(study, jobs=0, out="runs/nested/two", scale="smoke", overrides={"tasks": "1"})
    return "runs/one", "runs/nested/two"


def test_runs_are_listed(two: tuple[str, str], call: Call) -> None:
    heading, smoke, laptop = call("runs").out.splitlines()
    assert heading.split()[-1] == "directory" and smoke.endswith(two[1]) and laptop.endswith(two[0])
    assert laptop.split()[:6] == ["alpha", "laptop", "2", "3", "holds", "done"]
    rows = call("runs", "--json").json
    assert [(row["id"], row["verdict"], row["seeds"]) for row in rows] == [
        ("alpha", None, [0]),
        ("alpha", "holds", [0, 1, 2]),
    ]
    assert call("runs", "--in", "nowhere", "--json").json == []


def test_two_runs_are_compared(two: tuple[str, str], call: Call) -> None:
    answer = call("runs", "diff", *two)
    assert answer.code == 0 and "another study or scale" in answer.err
    lines = answer.out.splitlines()
    assert lines[0].startswith("A  runs/one: alpha at laptop scale")
    assert "●" in answer.out and "bwt" not in answer.out  # undefined for one task
    (row, _) = call("runs", "diff", *two, "--json").json
    assert (row["arm"], row["metric"], row["mean"], row["low"], row["seeds"]) == (
        "alpha",
        "acc",
        0.0,
        None,
        1,
    )
    (own, *_) = call("runs", "diff", two[0], two[0], "--metric", "acc", "--json").json
    assert (own["low"], own["mean"], own["high"], own["effect"]) == (0.0, 0.0, 0.0, None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("runs", "diff", "runs/one", "runs/non"), "neuropil: runs/non: no run here (run.json is missing)"),
        (("runs", "diff", "runs/one", "runs/one", "--metric", "ac"), "did you mean 'acc'"),
        (("runs", "export", "runs/one", "--format", "xls"), "'xls' is not one of"),
        (("run", "alpha", "--on", "rai"), "did you mean 'ray'"),
    ],
)
def test_what_is_wrong_is_one_line(
    two: tuple[str, str], call: Call, words: tuple[str, ...], said: str
) -> None:
    answer = call(*words)
    assert answer.code in (1, 2) and len(answer.lines) == 1 and said in answer.err


def test_a_run_is_exported(two: tuple[str, str], call: Call) -> None:
    assert call("runs", "export", two[0]).out == "exported  runs/one/trials.csv\n"
    assert len(Path("runs/one/trials.csv").read_text().splitlines()) == 7
    call("runs", "export", two[0], "--format", "json", "--out", "here.json")
    assert json.loads(Path("here.json").read_text())[0]["metric.acc"] == 0.9


def test_a_plan_is_told_and_shown(bench: Path, call: Call) -> None:
    plan = call("plan", "alpha", "--jobs", "1", "--json").json
    assert plan["expected"] == "holds" and plan["needed"] == 3 and plan["declared"] == 3
    shown = call("show", "alpha").out
    assert "Seeds" in shown and "alpha is better: likely holds (mean 0.4" in shown
