"""Names that come from settings, files or archives never lead out of the place that they name something in."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from neuropil import data
from neuropil.bench import catalogue
from neuropil.bench.evidence import read_evidence
from neuropil.bench.result import Result
from neuropil.bench.runner import resume, run
from neuropil.bench.store import content_key, read_run, trial_file, write_run
from neuropil.data.fetching import _extract
from neuropil.data.sources import FILES
from neuropil.errors import NeuropilError
from tests.bench.tiny_study import Other, Tiny, make

pytestmark = pytest.mark.guarantee("R5")

HOSTILE = (
    "..", ".", "", "/", "/etc/passwd", "../x", "a/../../x", "a/b", "..\\x", "C:\\x", "~", "~root/x", "%2e%2e%2fx",
    "%252e%252e/x", "a\0b", "a\nb", "con.txt", "NUL ", "x" * 300, "a.", ".hidden", "-rf", "$(id)", "`id`", "a;b",
    "\u202ex", "\uff0e\uff0e/x", "..;/x", "file:///etc/passwd",
)  # fmt: skip
names = st.sampled_from(HOSTILE) | st.text(max_size=80) | st.text(alphabet="./\\~%\0a-_", max_size=20)


@settings(max_examples=500, deadline=None)
@given(names, st.integers(0, 9999))
def test_a_trial_lies_in_its_run_or_is_refused(arm: str, seed: int) -> None:
    root = Path("/some/run")
    try:
        path = trial_file(root, arm, seed)
    except NeuropilError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert path.resolve().parent == root / "trials" and "\0" not in str(path)


@settings(max_examples=300, deadline=None)
@given(names)
def test_a_name_that_is_not_known_is_refused_before_any_path_is_made(name: str) -> None:
    assume(name not in {entry.id for entry in catalogue.entries()})
    for find in (catalogue.find, catalogue.study_path, catalogue.mechanism_path, catalogue.load_study):
        with pytest.raises(NeuropilError):
            find(name)
    for find in (data.load, data.fetch):
        with pytest.raises(NeuropilError):
            find(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_run_whose_file_names_hostile_things_is_refused(name: str, tmp_path: Path) -> None:
    bait = tmp_path / "bait"
    bait.mkdir()
    place = bait / "run"
    plan = Result("tiny", "smoke", (0,), (name,), (), ())
    write_run(place, plan)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(NeuropilError):
        read_run(place)
    with pytest.raises(NeuropilError):
        resume(place, study=make(), jobs=0)
    write_run(place, dataclasses.replace(plan, id=name, arms=("tiny",)))
    with pytest.raises(NeuropilError):
        resume(place, jobs=0)
    after = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert after == set(before)


@pytest.mark.parametrize("seed", ["../../x", -1, 1.5, True, [], {}, "0", None])
def test_seeds_from_a_file_are_numbers(seed: object, tmp_path: Path) -> None:
    content = {
        "schema": 1, "id": "tiny", "scale": "smoke", "seeds": [seed], "arms": ["tiny"], "judgements": [],
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps({**content, "sha256": content_key(content)}))
    try:
        result = read_run(tmp_path)
    except NeuropilError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert all(isinstance(value, int) for value in result.seeds)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_study_whose_arm_is_no_name_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(catalogue, "results_directory", lambda: tmp_path / "results")
    arms = {"tiny": Tiny(), "other": Other(), name: Tiny()}
    with pytest.raises(NeuropilError):
        run(make(arms=arms), seeds=[0], jobs=0, out="run")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_evidence_is_of_known_systems_or_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"schema": 1, "summary": {}}')
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(catalogue, "results_directory", lambda: tmp_path / "results")
    with pytest.raises(NeuropilError):
        read_evidence("../secret")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        names | st.sampled_from([f"{d}{f}" for d in ("../", "/", "a/../../", "~/") for f in FILES]),
        max_size=6,
    )
)
def test_members_of_an_archive_stay_in_the_folder(members: list[str]) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number, name in enumerate(members):
            for kind in (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE):
                member = tarfile.TarInfo(name.replace("\0", "") or f"m{number}")
                member.type, member.linkname = kind, "/etc/passwd"
                member.size = 3 if kind == tarfile.REGTYPE else 0
                archive.addfile(member, io.BytesIO(b"abc"))
    packed.seek(0)
    with tempfile.TemporaryDirectory() as place:
        inside = Path(place) / "outer" / "inner"
        inside.mkdir(parents=True)
        with tarfile.open(fileobj=packed) as archive:
            _extract(archive, inside)
        found = [path for path in Path(place).rglob("*") if not path.is_dir() or path.is_symlink()]
        assert all(path.parent == inside and path.name in FILES and not path.is_symlink() for path in found)
