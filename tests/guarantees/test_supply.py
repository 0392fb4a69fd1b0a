"""Few dependencies, and a wheel that anybody can build again to the bit."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.guarantee("R15"), pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "neuropil", "results")


def build(source: Path, place: Path, **environment: str) -> Path:
    """A wheel of a copy of the sources; where, when and by whom it is built must not matter."""
    copy = place / "source"
    shutil.copytree(source, copy)
    for path in copy.rglob("*"):
        os.utime(path, (10**9 + len(place.name), 10**9 + len(place.name)))
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place / "dist")],
        cwd=copy, capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = (place / "dist").glob("*.whl")
    return wheel


def test_two_builds_give_the_same_wheel_with_nothing_compiled_in_it(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for name in NEEDED:  # one snapshot, so that nobody's editing can come between
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, snapshot / name)
        else:
            shutil.copy(ROOT / name, snapshot / name)
    one = build(snapshot, tmp_path / "a", TZ="UTC", PYTHONHASHSEED="1")
    two = build(
        snapshot, tmp_path / "another", TZ="Pacific/Chatham", PYTHONHASHSEED="2", LC_ALL="tr_TR.UTF-8"
    )
    digests = [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in (one, two)]
    assert one.name == two.name and digests[0] == digests[1]
    with zipfile.ZipFile(one) as archive:
        names = archive.namelist()
    compiled = [
        n
        for n in names
        if n.endswith((".pyc", ".pyo", ".so", ".nbi", ".nbc", ".dll", ".pyd")) or "__pycache__" in n
    ]
    assert compiled == []
    assert all(n.startswith(("neuropil/", "neuropil-")) for n in names)
    assert "neuropil/py.typed" in names and not any("/tests/" in n for n in names)


def test_seven_packages_are_enough() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert len(project["dependencies"]) <= 7
    assert all("<" in each or ">" in each for each in project["dependencies"])
