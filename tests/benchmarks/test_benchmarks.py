"""Every workload runs at tiny size with what is installed; the harness keeps its word about rows."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from benchmarks import environments
from benchmarks.__main__ import all_workloads, main
from benchmarks.harness import Measurement, measure
from benchmarks.worker import timed
from benchmarks.workload import Contender, Disagreement, Row, Workload, close

WORKLOADS = {workload.name: workload for workload in all_workloads()}
KEYS = {"workload", "against", "ratio", "target", "goal", "limit_ratio", "ours_ms", "peers", "spread"}


def here(workload):
    """The workload without contenders of other environments."""
    contenders = [contender for contender in workload.contenders if contender.environment == "here"]
    return Workload(**{**vars(workload), "contenders": contenders})


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_runs_and_its_contenders_agree(name):
    measured = measure(here(WORKLOADS[name]), tiny=True, rounds=1, block=0)
    rows = [measured.row(row) for row in WORKLOADS[name].rows]
    for row in filter(None, rows):
        assert set(row) == KEYS
        json.dumps(row)


@pytest.mark.peer
@pytest.mark.parametrize(
    "name", [name for name, w in WORKLOADS.items() if here(w).contenders != list(w.contenders)]
)
def test_peers_run_and_agree(name):
    needed = {contender.environment for contender in WORKLOADS[name].contenders} - {"here"}
    for environment in needed:
        try:
            environments.python(environment, prepare=False)
        except environments.AbsentError as error:
            pytest.skip(str(error))
    assert measure(WORKLOADS[name], tiny=True, rounds=1, block=0, prepare=False).left_out == {}


def test_rows_are_named_once():
    names = [row.name for workload in WORKLOADS.values() for row in workload.rows]
    assert len(names) == len(set(names))


def test_a_ratio_is_the_fastest_rivals_median_over_ours():
    row = Row("r", ["slow", "fast", "absent"], target=1, goal=2)
    workload = Workload("w", "", lambda tiny: {}, [], [row], limit="limit")
    seconds = {
        "neuropil": [1.0, 2.0, 3.0],
        "fast": [4.0, 4.0, 4.0],
        "slow": [9.0, None, 9.0],
        "limit": [1.0, 1.0, 1.0],
    }
    found = Measurement(workload, seconds).row(row)
    assert found["against"] == "fast"
    assert found["ratio"] == 2.0
    assert found["limit_ratio"] == 0.5
    assert found["spread"] == [4 / 3, 4.0]
    assert found["peers"] == {"fast": 4000.0, "slow": 9000.0, "limit": 1000.0}
    assert Measurement(workload, {"neuropil": [1.0]}).row(row) is None


def test_contenders_are_timed_in_turns_on_the_same_inputs():
    seen = []

    def make(name):
        def contender(inputs):
            return lambda: seen.append((name, float(inputs["x"][0]))) or {}

        return contender

    workload = Workload(
        "w",
        "",
        lambda tiny: {"x": np.array([7.0])},
        [Contender("neuropil", make("a")), Contender("b", make("b"))],
        [],
    )
    measured = measure(workload, rounds=3, block=0)
    assert len(measured.seconds["neuropil"]) == len(measured.seconds["b"]) == 3
    assert {value for _, value in seen} == {7.0}
    assert [name for name, _ in seen[:2]] == ["a", "b"]


def test_a_timing_is_of_calls_in_a_row_that_fill_a_block(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def run():
        calls.append(now[0])
        now[0] += 0.01 if len(calls) <= 6 else 0.005  # faster once the caches have settled

    assert timed(run, block=0.1) == pytest.approx(0.005)
    assert len(calls) == 1 + 5 + 10


def test_a_long_call_is_timed_alone(monkeypatch):
    clock = iter([5.0, 5.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert timed(lambda: None, block=0.1) == 0.5


def test_disagreement_is_told_and_rounding_is_not():
    same = {"a": {"y": np.array([1.0, 2.0])}, "b": {"y": np.array([1.0, 2.0 + 1e-7])}, "other": {}}
    assert close(same, "a", "y") == ["y: b = a"]
    with pytest.raises(Disagreement, match="y of b"):
        close({**same, "b": {"y": np.array([1.0, 2.5])}}, "a", "y")
    with pytest.raises(Disagreement, match="shape"):
        close({**same, "b": {"y": np.array([1.0])}}, "a", "y")
    with pytest.raises(Disagreement, match=r"50\.00%"):
        close({**same, "b": {"y": np.array([1.0, np.nan])}}, "a", "y")


def test_an_unknown_name_gets_one_line_and_status_2(capsys):
    assert main(["lif_T11"]) == 2
    assert capsys.readouterr().err.startswith("unknown benchmark 'lif_T11'")


def test_environments_are_pinned():
    for requirements in environments.sections().values():
        assert requirements
        assert all("==" in requirement for requirement in requirements)
