from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from neuropil.bench import Study, catalogue, evidence
from neuropil.bench.runner import run
from neuropil.bench.tune import tune
from neuropil.errors import CheckpointError, ConfigError, UnknownNameError
from tests.bench.tiny_study import study, trial

ENTRY = catalogue.Entry("tiny", "room", "A tiny system", 2024)


@pytest.fixture
def package(own_places: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one catalogued system, whose trial function is the tiny study's."""
    package = own_places / "pkg"
    for name, text in {
        "studies/room/tiny.py": "from pkg.room.tiny import Tiny\n",
        "studies/room/big_league.py": '"""Everything against everything."""\n',
        "room/tiny.py": "from pkg.nn.shared import part\nTiny = part\n",
        "nn/shared.py": "part = 1\n",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    # The trial function's own file lies outside the package; evidence finds it beside it.
    (own_places / "tiny_study.py").write_text(Path(trial.__code__.co_filename).read_text())
    monkeypatch.setattr(catalogue, "PACKAGE", package)
    monkeypatch.setattr(catalogue, "entries", lambda: (ENTRY,))
    return package


def edit(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def state() -> str:
    return evidence.check(["tiny"])[0].state


def test_a_whole_laptop_run_becomes_evidence_and_reads_back(package: Path) -> None:
    assert state() == "missing" and catalogue.status(ENTRY) == ("planned", None, None)
    result = run(study, jobs=0, out="a")
    assert state() == "fresh"
    assert catalogue.status(ENTRY) == ("done", "holds", pytest.approx(result.seconds, abs=0.01))
    read = evidence.read_evidence("tiny")
    assert read == dataclasses.replace(result, directory=None)
    content = json.loads(evidence.evidence_file("tiny").read_text(), parse_constant=pytest.fail)
    assert content["summary"]["verdict"] == "holds" and len(content["trials"]) == 6
    assert {"cpu", "cores", "python", "torch", "numba"} <= set(content["provenance"]["machine"])


@pytest.mark.parametrize(
    "options",
    [
        {"scale": "smoke"},
        {"seeds": [0, 1]},
        {"arms": ["tiny"]},
        {"overrides": {"draws": "4"}},
        {"overrides": {"mode": "raise"}},
    ],
)
def test_anything_less_is_no_evidence(package: Path, options: dict) -> None:
    run(study, jobs=0, out="a", **options)
    assert state() == "missing"


def test_a_study_that_is_not_catalogued_leaves_no_evidence(own_places: Path) -> None:
    run(study, jobs=0, out="a")
    assert not (own_places / "results").exists()


def test_stale_and_unverified_are_told_apart(package: Path) -> None:
    run(study, jobs=0, out="a")
    edit(package / "room/tiny.py", "# a comment\n")
    assert state() == "fresh"
    edit(package / "nn/shared.py", "other = 2\n")
    assert state() == "unverified" and catalogue.status(ENTRY).state == "done"
    edit(package / "room/tiny.py", "changed = 3\n")
    (row,) = evidence.check(["tiny"])
    assert row.state == "stale" and "mechanism changed" in row.reason
    assert catalogue.status(ENTRY) == ("planned", None, None)
    edit(package / "studies/room/tiny.py", "changed = 3\n")
    assert "study and the mechanism changed" in evidence.check(["tiny"])[0].reason


def test_arms_tuned_anew_make_evidence_stale(package: Path) -> None:
    run(study, jobs=0, out="a")
    tune(study, arms=["tiny"], jobs=0)
    assert state() == "stale" and "tuned anew" in evidence.check(["tiny"])[0].reason
    run(study, jobs=0, out="b")
    assert state() == "fresh"


def test_check_lists_what_is_built_or_has_evidence(package: Path) -> None:
    assert [row.id for row in evidence.check()] == ["tiny", "big-league"]
    with pytest.raises(UnknownNameError, match="'tiny'"):
        evidence.check(["tny"])


def test_equal_metrics_stamp_evidence_anew(package: Path) -> None:
    run(study, jobs=0, out="a")
    edit(package / "nn/shared.py", "other = 2\n")
    row = evidence.replay("tiny", study=study, jobs=0)
    assert row.state == "fresh" == state() and "2 arms" in row.reason


def test_other_metrics_are_reported_and_nothing_is_stamped(package: Path) -> None:
    result = run(study, jobs=0, out="a")
    forged = [dataclasses.replace(t, metrics={**t.metrics, "acc": 0.5}) for t in result.trials]
    evidence.write_evidence(dataclasses.replace(result, trials=tuple(forged)))
    edit(package / "nn/shared.py", "other = 2\n")
    row = evidence.replay("tiny", study=study, jobs=0)
    assert row.state == "unverified" and row.reason.startswith("arm tiny, seed 0: acc was 0.5, is 0.")
    assert state() == "unverified"


def test_stale_evidence_is_not_replayed(package: Path) -> None:
    run(study, jobs=0, out="a")
    edit(package / "room/tiny.py", "changed = 3\n")
    assert evidence.replay("tiny", study=study, jobs=0).state == "stale"


def test_evidence_stays_small_by_leaving_out_arrays_of_later_seeds_first(package: Path) -> None:
    result = run(study, jobs=0, out="a")
    large = [dataclasses.replace(t, arrays={"big": [0.5] * 15_000, "small": [1.0]}) for t in result.trials]
    evidence.write_evidence(dataclasses.replace(result, trials=tuple(large)))
    kept = {(t.arm, t.seed): set(t.arrays) for t in evidence.read_evidence("tiny").trials}
    assert evidence.evidence_file("tiny").stat().st_size < 1.2 * evidence.LARGEST
    assert kept["tiny", 0] == kept["other", 0] == {"big", "small"}
    assert any("big" not in names for names in kept.values())
    assert all("small" in names for names in kept.values())


def test_evidence_needs_a_verdict(package: Path) -> None:
    with pytest.raises(ConfigError, match="laptop"):
        evidence.write_evidence(run(study, scale="smoke", jobs=0, out="a"))
    with pytest.raises(CheckpointError, match="neuropil run tiny"):
        evidence.read_evidence("tiny")


@pytest.mark.parametrize("text", ["", "{}", '{\n"summary": {}\n}', '{\n"summary": {"schema": 1\n}'])
def test_damaged_evidence_is_missing(package: Path, text: str) -> None:
    evidence.evidence_file("tiny").parent.mkdir(parents=True)
    evidence.evidence_file("tiny").write_text(text)
    assert state() == "missing" and catalogue.status(ENTRY).state == "planned"


def test_catalogue_finds_places_and_leagues(package: Path) -> None:
    assert catalogue.leagues() == (
        catalogue.Entry("big-league", "room", "Everything against everything.", None),
    )
    assert catalogue.study_path("tiny") == package / "studies/room/tiny.py"
    assert catalogue.mechanism_path("tiny") == package / "room/tiny.py"
    (package / "studies/room/tiny.py").unlink()
    with pytest.raises(UnknownNameError, match="planned"):
        catalogue.load_study("tiny")
    with pytest.raises(UnknownNameError, match="'tiny'"):
        catalogue.load_study("tiy")


def test_real_catalogue_has_every_system_once() -> None:
    ids = [entry.id for entry in catalogue.entries()]
    assert len(ids) == len(set(ids)) == 159
    assert isinstance(study, Study)
