"""What each command prints and keeps."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from neuropil.bench import evidence, runner
from neuropil.bench.evidence import Row
from neuropil.cli import doctor, session
from neuropil.cli.compare import resolve
from neuropil.cli.output import json_answer, plain
from tests.cli.conftest import Answer, Call


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are drawn and tested elsewhere: here a page is the id of its result."""

    def write_report(study: Any, result: Any, path: Path) -> Path:
        path.write_text(result.id)
        return path

    monkeypatch.setattr("neuropil.bench.report.write_report", write_report)


class TestList:
    def test_has_one_object_per_system(self, bench: Path, call: Call) -> None:
        rows = call("list", "--json").json
        assert [row["id"] for row in rows] == ["alpha", "beta", "gamma"]
        assert rows[0] == {
            "id": "alpha",
            "room": "continual",
            "title": "Alpha: a first system",
            "year": 2024,
            "status": "planned",
            "verdict": None,
            "seconds": None,
        }

    def test_of_a_room(self, bench: Path, call: Call) -> None:
        assert [row["id"] for row in call("list", "--room", "spiking", "--json").json] == ["beta", "gamma"]

    def test_of_leagues(self, bench: Path, call: Call) -> None:
        assert call("list", "--leagues", "--json").json == []

    def test_in_a_pipe_gives_a_line_per_system(self, bench: Path, call: Call) -> None:
        heading, *lines = call("list").out.splitlines()
        assert heading.split() == ["id", "room", "status", "claim", "seconds", "year", "title"]
        assert [line.split()[0] for line in lines] == ["alpha", "beta", "gamma"]


def test_the_real_catalogue_is_listed_in_full(call: Call) -> None:
    rows = call("list", "--json").json
    assert len(rows) == 159
    assert all(set(row) == {"id", "room", "title", "year", "status", "verdict", "seconds"} for row in rows)
    assert {row["status"] for row in rows} <= {"done", "planned"}


class TestRun:
    def test_prints_one_object(self, runs: list[dict[str, Any]], call: Call) -> None:
        answer = call("run", "alpha", "--json", "--scale", "smoke", "--n-seeds", "2", "--set", "tasks=1")
        assert answer.code == 0
        document = answer.json
        report = document.pop("report")
        assert Path(report).read_text() == "alpha"
        assert document == {
            "id": "alpha",
            "scale": "smoke",
            "seeds": [0, 1],
            "arms": {
                "alpha": {"acc": [0.9, 0.91], "bwt": [None, None]},
                "finetune": {"acc": [0.5, 0.51], "bwt": [None, None]},
            },
            "cost": {"alpha": {"seconds": [0.25, 0.25]}, "finetune": {"seconds": [0.25, 0.25]}},
            "claims": [
                {
                    "text": "alpha is better",
                    "primary": True,
                    "verdict": "holds",
                    "value": 0.4,
                    "ci_low": None,
                    "ci_high": 0.5,
                    "margin": 0.05,
                }
            ],
            "seconds": 1.5,
        }

    def test_leaves_out_claims_whose_arms_were_not_run(self, runs: list[dict[str, Any]], call: Call) -> None:
        document = call("run", "alpha", "--json", "--arms", "finetune").json
        assert document["claims"] == []
        assert list(document["arms"]) == ["finetune"]

    def test_asks_the_runner_for_what_was_asked(self, runs: list[dict[str, Any]], call: Call) -> None:
        words = (
            "--scale smoke --seeds 4,2 --arms finetune,alpha --set lr=0.5 --set tasks=2 --jobs 3 --out here"
        )
        assert call("run", "alpha", *words.split()).code == 0
        (asked,) = runs
        assert asked["arms"] == ("finetune", "alpha")
        assert asked["seeds"] == (4, 2)
        assert asked["overrides"] == {"lr": "0.5", "tasks": "2"}
        assert (asked["scale"], asked["jobs"], asked["out"]) == ("smoke", 3, Path("here"))

    def test_makes_a_directory_of_its_own_each_time(self, runs: list[dict[str, Any]], call: Call) -> None:
        for _ in range(3):
            assert call("run", "alpha", "--scale", "smoke").code == 0
        directories = [asked["out"] for asked in runs]
        assert len(set(directories)) == 3
        assert all(str(directory).startswith("runs/alpha-smoke-2") for directory in directories)

    def test_tells_a_person_the_numbers_and_where_the_report_is(
        self, runs: list[dict[str, Any]], call: Call
    ) -> None:
        answer = call("run", "alpha")
        assert "alpha is better" in answer.out
        assert answer.lines[-1].startswith("report    runs/alpha-laptop-")

    def test_tells_failed_trials_in_one_line_and_leaves_with_1(
        self, runs: list[dict[str, Any]], call: Call
    ) -> None:
        answer = call("run", "alpha", "--json", "--n-seeds", "1", "--set", "lr=0.75")
        assert answer.code == 1
        assert answer.json["arms"] == {"alpha": {}, "finetune": {}}
        said = "neuropil: 2 of 2 trials failed, first alpha seed 0: loss is not finite at step 3"
        assert said in answer.lines

    @pytest.mark.parametrize("setting", ["lrr=0.1", "lr=nan", "lr=2", "tasks=0", "tasks=x", "stream=split2"])
    def test_refuses_a_bad_setting_in_one_line_that_names_it(
        self, runs: list[dict[str, Any]], call: Call, bench: Path, setting: str
    ) -> None:
        answer = call("run", "alpha", "--set", setting, "--json")
        assert answer.code == 2
        assert answer.out == ""
        assert len(answer.lines) == 1
        assert setting.split("=")[0] in answer.lines[0]
        assert list((bench / "work" / "runs").iterdir()) == []

    def test_refuses_a_directory_that_is_not_a_run(
        self, runs: list[dict[str, Any]], call: Call, bench: Path
    ) -> None:
        foreign = bench / "work" / "thesis"
        foreign.mkdir()
        (foreign / "chapter.tex").write_text("mine")
        answer = call("run", "alpha", "--out", str(foreign))
        assert answer.code == 2
        assert len(answer.lines) == 1
        assert "holds files that are not a run" in answer.lines[0]
        assert [path.name for path in foreign.iterdir()] == ["chapter.tex"]
        assert runs == []

    def test_offers_to_resume_a_run_that_is_there(self, runs: list[dict[str, Any]], call: Call) -> None:
        call("run", "alpha", "--out", "here")
        answer = call("run", "alpha", "--out", "here")
        assert answer.code == 2
        assert "neuropil resume here" in answer.lines[0]

    def test_says_how_to_go_on_when_interrupted(
        self, bench: Path, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: Any, out: Path, **__: Any) -> None:
            (out / "run.json").write_text("{}")
            raise KeyboardInterrupt

        monkeypatch.setattr(runner, "run", interrupted)
        answer = call("run", "alpha", "--json", "--out", "here")
        assert answer.code == 130
        assert answer.out == ""
        assert answer.lines == [
            "neuropil: interrupted; finished trials are kept; go on with: neuropil resume here"
        ]
        assert Path("here/run.json").is_file()


def test_what_others_print_does_not_reach_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    with json_answer(True) as answer:
        print("from python")
        os.system("echo from a child")
        assert answer is not None
        answer({"acc": float("inf")})
    out, err = capfd.readouterr()
    assert json.loads(out) == {"acc": None}
    assert "from python" in err
    assert "from a child" in err


def test_no_answer_is_printed_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), json_answer(True) as answer:
        assert answer is not None
        answer({})
        raise ZeroDivisionError
    print("afterwards")
    assert capfd.readouterr().out == "afterwards\n"


def test_plain_values_survive_a_round_trip() -> None:
    value = {"a": [1, 0.5, None, True, "x"], "b": {"c": []}}
    assert json.loads(json.dumps(plain(value))) == value


class TestCompare:
    def test_runs_all_on_one_stream_with_the_same_seeds(self, runs: list[dict[str, Any]], call: Call) -> None:
        answer = call("compare", "alpha", "beta", "finetune", "--stream", "split", "--n-seeds", "2", "--json")
        assert answer.code == 0
        assert [(asked["study"], asked["arms"]) for asked in runs] == [
            ("alpha", ["alpha", "finetune"]),
            ("beta", ["beta"]),
        ]
        assert all(asked["overrides"] == {"stream": "split"} for asked in runs)
        assert all(asked["seeds"] == (0, 1) for asked in runs)
        assert answer.json["arms"]["beta"]["acc"] == [0.8, 0.81]
        assert list(answer.json["arms"]) == ["alpha", "finetune", "beta"]
        assert answer.json["claims"] == []
        assert Path(answer.json["report"]).is_file()

    def test_refuses_an_unknown_stream_in_one_line(self, runs: list[dict[str, Any]], call: Call) -> None:
        answer = call("compare", "alpha", "finetune", "--stream", "splitt")
        assert answer.code == 2
        assert len(answer.lines) == 1
        assert "stream" in answer.lines[0]
        assert "'split'" in answer.lines[0]

    def test_finds_an_arm_in_the_named_studies_first(self, bench: Path) -> None:
        found = resolve(["slow", "alpha"])
        assert [(contender.study.id, contender.arm) for contender in found] == [
            ("beta", "slow"),
            ("alpha", "alpha"),
        ]


class TestCheck:
    ROWS = (Row("alpha", "fresh", ""), Row("beta", "unverified", "shared code changed"))

    @pytest.fixture(autouse=True)
    def rows(self, bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stamped = Row("beta", "fresh", "replayed")
        monkeypatch.setattr(evidence, "check", lambda names=None: self.ROWS)
        monkeypatch.setattr(evidence, "replay", lambda name, **_: stamped)

    def test_lists_how_evidence_stands(self, call: Call) -> None:
        answer = call("check", "--json")
        assert answer.code == 0
        assert answer.json == [row._asdict() for row in self.ROWS]

    def test_replays_what_is_unverified(self, call: Call) -> None:
        assert [row["state"] for row in call("check", "--replay", "--json").json] == ["fresh", "fresh"]

    def test_leaves_with_1_when_evidence_is_stale(self, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        stale = (Row("alpha", "stale", "the mechanism changed"),)
        monkeypatch.setattr(evidence, "check", lambda names=None: stale)
        answer = call("check", "alpha")
        assert answer.code == 1
        assert answer.out.splitlines()[1].split() == ["alpha", "stale", "the", "mechanism", "changed"]


class TestReport:
    def test_is_written_anew_for_a_run(self, runs: list[dict[str, Any]], call: Call) -> None:
        call("run", "alpha", "--out", "here")
        Path("here/report.html").unlink()
        assert call("report", "here").out == "report    here/report.html\n"
        assert Path("here/report.html").read_text() == "alpha"

    def test_is_of_the_newest_run_unless_one_is_named(self, runs: list[dict[str, Any]], call: Call) -> None:
        call("run", "beta")
        call("run", "alpha")
        older, newer = (asked["out"] for asked in runs)
        os.utime(older / "run.json", (time.time() - 60,) * 2)
        assert call("report").out == f"report    {newer}/report.html\n"

    def test_goes_where_it_is_told(self, runs: list[dict[str, Any]], call: Call) -> None:
        call("run", "alpha", "--out", "here")
        assert call("report", "here", "--out", "page.html").code == 0
        assert Path("page.html").read_text() == "alpha"

    def test_missing_packages_do_not_cost_the_run(
        self, runs: list[dict[str, Any]], call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(*_: Any) -> Path:
            raise session.MissingExtraError("plotly is not installed: pip install 'neuropil[bench]'")

        monkeypatch.setattr("neuropil.bench.report.write_report", missing)
        answer = call("run", "alpha", "--json")
        assert answer.code == 0
        assert answer.json["report"] is None
        assert "no report: plotly is not installed: pip install 'neuropil[bench]'" in answer.lines


class TestShow:
    def test_a_planned_system(self, bench: Path, call: Call) -> None:
        out = call("show", "gamma").out
        assert out.splitlines()[:2] == ["Gamma: not built", "gamma · spiking · 2022"]
        assert "Planned" in out

    def test_a_built_system_has_claims_arms_and_settings(self, bench: Path, call: Call) -> None:
        answer = call("show", "alpha")
        assert answer.code == 0
        for word in ("alpha is better (primary)", "finetune", "learning rate", "0.1", "permuted", "@article"):
            assert word in answer.out


def test_data_sets_are_listed(call: Call) -> None:
    rows = {row["name"]: row for row in call("data", "list", "--json").json}
    assert rows["mnist"]["present"] is True
    assert call("data", "list").out.splitlines()[0].split()[0] == "name"


def test_an_unknown_data_set_is_one_line(call: Call) -> None:
    answer = call("data", "fetch", "mnst")
    assert answer.code == 2
    assert len(answer.lines) == 1
    assert "'mnist'" in answer.lines[0]


class TestDoctor:
    def test_tells_what_is_here(self, bench: Path, call: Call) -> None:
        answer: Answer = call("doctor", "--json")
        assert answer.code == 0
        assert answer.json["cache"] == str(bench / "cache")
        assert answer.json["problems"] == []
        assert answer.json["data"]["mnist"] == "here"
        assert call("doctor").out.splitlines()[1].split()[0] == "neuropil"

    def test_leaves_with_1_when_something_is_amiss(
        self, bench: Path, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(doctor, "_writable", lambda directory: False)
        answer = call("doctor", "--json")
        assert answer.code == 1
        assert any("NEUROPIL_CACHE" in problem for problem in answer.json["problems"])
