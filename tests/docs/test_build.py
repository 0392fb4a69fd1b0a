"""The documentation builds without a warning, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from neuropil.bench import catalogue
from tests.docs.pages import ROOT

pytestmark = pytest.mark.docs


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package)
    site = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return site


def test_every_built_system_has_a_page_with_its_claims(built: Path) -> None:
    systems = [entry for entry in catalogue.entries() if catalogue.study_path(entry.id).is_file()]
    assert systems
    for entry in systems:
        page = (built / "systems" / entry.id / "index.html").read_text(encoding="utf-8")
        for claim in catalogue.load_study(entry.id).claims:
            assert claim.text.split("(")[0] in page


def test_the_catalogue_names_every_system(built: Path) -> None:
    page = (built / "systems" / "index.html").read_text(encoding="utf-8")
    assert [entry.id for entry in catalogue.entries() if f"<code>{entry.id}</code>" not in page] == []


def test_the_api_has_what_the_packages_export(built: Path) -> None:
    page = (built / "api" / "nn" / "index.html").read_text(encoding="utf-8")
    assert 'id="neuropil.nn.lif.LIF"' in page
    assert "share of the membrane" in page.lower()
    assert '<span class="gp">&gt;&gt;&gt; </span>' in page  # a doctest, highlighted
    assert "<blockquote>" not in page  # what a doctest becomes when it is taken for prose


def test_no_page_loads_anything_from_elsewhere(built: Path) -> None:
    loads = re.compile(
        r'<(?:script|img|iframe)[^>]+src="(https?:)?//|<link[^>]+rel="?stylesheet"?[^>]+href="(https?:)?//'
    )
    assert [
        str(page) for page in built.rglob("*.html") if loads.search(page.read_text(encoding="utf-8"))
    ] == []
