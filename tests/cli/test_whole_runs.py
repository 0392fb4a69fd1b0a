"""Whole runs, with workers, in processes of their own: what they print and keep, and what survives a stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Command:
    """Calls the command in a process of its own, in a fresh place."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.work = place / "work"
        self.work.mkdir()

    def start(self, *words: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "NEUROPIL_CACHE": str(self.place / "cache"),
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "tests.cli.driver", str(self.place), *words],
            cwd=self.work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=250)
        return process.returncode, out, err

    def json(self, *words: str) -> Any:
        code, out, err = self(*words, "--json")
        assert code == 0, err
        return json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


def stop_after_a_trial(process: subprocess.Popen[str], run: Path, number: int) -> tuple[int, str]:
    """Send a signal once a first trial is kept; the exit code and what was said."""
    deadline = time.monotonic() + 200
    while not any(run.glob("trials/*.json")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=250)
    return process.returncode, err


def test_a_laptop_run_becomes_evidence_that_stands(command: Command) -> None:
    code, out, err = command("run", "alpha", "--jobs", "1")
    assert code == 0, err
    assert "alpha is better (primary)" in out
    assert f"evidence  {command.place / 'results' / 'alpha.json'}" in err
    (row,) = command.json("check", "alpha")
    assert row == {"id": "alpha", "state": "fresh", "reason": ""}
    listed = command.json("list", "--room", "continual")[0]
    assert (listed["status"], listed["verdict"]) == ("done", "holds")
    assert "holds" in command("show", "alpha")[1]
    assert command.json("check", "alpha", "--replay")[0]["state"] == "fresh"
    code, out, err = command("report", "alpha")
    assert (code, out) == (0, "report    alpha.html\n"), err
    page = (command.work / "alpha.html").read_text()
    assert page.lower().startswith("<!doctype html>")


def test_a_smoke_run_prints_its_object_and_keeps_no_evidence(command: Command) -> None:
    document = command.json(
        "run", "alpha", "--scale", "smoke", "--seeds", "2,0", "--set", "tasks=1", "--jobs", "1"
    )
    assert document["arms"] == {
        "alpha": {"acc": [0.92, 0.9], "bwt": [None, None]},
        "finetune": {"acc": [0.52, 0.5], "bwt": [None, None]},
    }
    assert (document["id"], document["scale"], document["seeds"]) == ("alpha", "smoke", [2, 0])
    assert len(document["cost"]["alpha"]["seconds"]) == 2
    (claim,) = document["claims"]
    assert (claim["text"], claim["primary"], claim["margin"]) == ("alpha is better", True, 0.05)
    assert claim["value"] == pytest.approx(0.4)
    assert Path(command.work / document["report"]).is_file()
    assert list((command.place / "results").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_stopped_run_goes_on_where_it_was(command: Command, number: int, code: int, word: str) -> None:
    words = ("run", "alpha", "--scale", "smoke", "--n-seeds", "2", "--jobs", "1", "--out", "here")
    stopped, err = stop_after_a_trial(
        command.start(*words, "--set", "wait=0.5"), command.work / "here", number
    )
    assert stopped == code, err
    said = f"neuropil: {word}; finished trials are kept; go on with: neuropil resume here"
    assert err.strip().splitlines()[-1] == said
    assert "Traceback" not in err
    document = command.json("resume", "here", "--jobs", "1")
    assert document["arms"] == {
        "alpha": {"acc": [0.9, 0.91], "bwt": [-0.03, -0.03]},
        "finetune": {"acc": [0.5, 0.51], "bwt": [-0.03, -0.03]},
    }


def test_a_failing_trial_is_told_and_the_run_leaves_with_1(command: Command) -> None:
    code, out, err = command(
        "run", "alpha", "--scale", "smoke", "--set", "alpha.lr=0.75", "--jobs", "1", "--json"
    )
    assert code == 1
    assert json.loads(out)["arms"] == {"alpha": {}, "finetune": {"acc": [0.5], "bwt": [-0.03]}}
    assert "neuropil: 1 of 2 trials failed, first alpha seed 0: loss is not finite at step 3" in err
    assert "Traceback" not in err


def test_compare_runs_arms_of_two_studies(command: Command) -> None:
    words = ("compare", "alpha", "slow", "--stream", "split", "--scale", "smoke", "--jobs", "1")
    document = command.json(*words)
    assert document["arms"] == {
        "alpha": {"acc": [0.9], "bwt": [-0.03]},
        "slow": {"acc": [0.7], "bwt": [-0.03]},
    }
    assert Path(command.work / document["report"]).is_file()


def test_tuning_needs_a_search_space(command: Command) -> None:
    code, out, err = command("tune", "alpha")
    assert (code, out) == (2, "")
    assert err.startswith("neuropil: study alpha: nothing to tune")


def test_the_main_job_keeps_the_contract(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "neuropil", "run", "hlop", "--scale", "smoke", "--json"],
        cwd=tmp_path,
        env={**os.environ, "NEUROPIL_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    assert set(document) == {"id", "scale", "seeds", "arms", "cost", "claims", "report", "seconds"}
    assert {"hlop", "finetune", "ewc", "replay", "gpm", "joint"} <= set(document["arms"])
    for metrics in document["arms"].values():
        assert {"acc", "bwt"} <= set(metrics)
        assert all(len(values) == len(document["seeds"]) for values in metrics.values())
        assert all(0 <= value <= 1 for value in metrics["acc"])
    assert sum(claim["primary"] for claim in document["claims"]) == 1
    assert (tmp_path / document["report"]).is_file()
