"""The README is true: its Python runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from neuropil.cli.main import COMMANDS
from tests.docs.pages import ROOT, execute

README = ROOT / "README.md"


def test_its_python_runs(tmp_path: Path) -> None:
    done = execute(README, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_its_commands_exist(name: str) -> None:
    used = re.findall(r"(?:^\$ |`)neuropil (\w+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    assert used
    assert set(used) <= set(COMMANDS)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_its_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / name).read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_the_citation_names_this_version() -> None:
    from neuropil import __version__

    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
