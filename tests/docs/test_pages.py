"""Every block of Python in the documentation runs, in the order of the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import BLOCK, ROOT, execute, script

PAGES = sorted(
    path for path in (ROOT / "docs").rglob("*.md") if BLOCK.search(path.read_text(encoding="utf-8"))
)


def test_the_tutorials_are_among_the_pages() -> None:
    names = {path.stem for path in PAGES}
    assert {
        "index",
        "keeps",
        "plugin",
        "data",
        "neuron",
        "spiking",
        "claim",
        "from-snntorch",
        "from-avalanche",
    } <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(
    page: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    done = execute(page, tmp_path, tmp_path_factory.getbasetemp() / "kernels")  # compiled once for all pages
    assert done.returncode == 0, done.stderr


def test_a_block_that_fails_is_told_with_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\n```python\nx = 1\n```\n\n```py\nnot python\n```\n\n```python\nassert x == 2\n```\n"
    )
    assert script(page).splitlines()[11] == "assert x == 2"
    done = execute(page, tmp_path)
    assert done.returncode == 1
    assert "line 12" in done.stderr
