"""The collector of parts must lose none, and must not let one broken test module hide the others."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.contracts import parts as collector


def some_part(kind: object = None) -> None: ...


def test_names_say_what_is_made() -> None:
    assert collector._label(some_part) == "some_part"
    assert collector._label(partial(some_part, int)) == "some_part(int)"
    assert collector._label(partial(partial(some_part), kind="a")) == "some_part(kind=a)"


def test_every_declaring_module_is_found_with_a_name_of_its_own() -> None:
    found = collector.parts("module")
    ids = [param.id for param in found]
    assert len(ids) == len(set(ids))
    assert {"nn.sequential-linear_sum", "nn.traced-online"} <= set(ids)


def test_broken_module_is_a_failing_part_of_every_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "TESTS", tmp_path)
    broken = tmp_path / "nowhere" / "test_broken.py"
    broken.parent.mkdir()
    broken.write_text("import nothing_of_that_name\nPARTS = []\n")
    found = list(collector._declared_in(broken))
    assert [kind for kind, _, _ in found] == list(collector.KINDS)
    assert {name for _, name, _ in found} == {"nowhere.broken-cannot-be-imported"}
    with pytest.raises(ImportError):
        found[0][2]()


def test_module_without_parts_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "TESTS", tmp_path)
    plain = tmp_path / "test_plain.py"
    plain.write_text("raise RuntimeError\n")
    assert list(collector._declared_in(plain)) == []
