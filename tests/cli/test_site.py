"""`neuropil report --all`: the site of what there is, with the comparisons that were run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.cli.conftest import Call


def test_the_site_holds_catalogue_systems_and_comparisons(runs: list[dict[str, Any]], call: Call) -> None:
    assert call("compare", "alpha", "beta", "--n-seeds", "2").code == 0
    answer = call("report", "--all")
    assert (answer.code, answer.out) == (0, "site      site/index.html\n")
    index = Path("site/index.html").read_text()
    assert all(f'id="{name}"' in index for name in ("alpha", "beta", "gamma"))
    (comparison,) = Path("site/comparisons").iterdir()
    assert f'href="comparisons/{comparison.name}"' in index
    assert "alpha is better" in Path("site/systems/alpha.html").read_text()


def test_a_comparison_that_was_cut_short_is_left_out(runs: list[dict[str, Any]], call: Call) -> None:
    assert call("compare", "alpha", "beta", "--n-seeds", "2").code == 0
    for trial in Path("runs").glob("*/beta/trials/*.json"):
        trial.unlink()
    assert call("report", "--all", "--out", "there").code == 0
    assert not Path("there/comparisons").exists()


def test_all_takes_no_source_and_no_file(bench: Path, call: Call) -> None:
    answer = call("report", "alpha", "--all")
    assert (answer.code, len(answer.lines)) == (2, 1)
    Path("file").touch()
    answer = call("report", "--all", "--out", "file")
    assert answer.lines == ["neuropil: --out file: is a file; expected a directory for the site"]
