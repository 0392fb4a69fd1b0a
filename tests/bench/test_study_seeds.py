"""Which seeds a study's evidence is of, and where its words about a result stand."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import pytest

from neuropil.bench import catalogue
from neuropil.bench.runner import _seeds
from tests.bench.tiny_study import study


def test_a_run_that_repeats_an_earlier_one_takes_the_seeds_after_it() -> None:
    again = replace(study, seeds=3, first_seed=5)
    assert _seeds(again, "laptop", None) == (5, 6, 7)
    assert _seeds(again, "smoke", None) == (5,)


def test_words_in_a_study_files_docstring_come_before_its_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("neuropil.studies.continual.hlop", "Title.\n\nIt failed,\nand this is why.\n")
    module.study = replace(study, id="hlop", notes="Use it so.")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert catalogue.load_study("hlop").notes == "It failed,\nand this is why.\n\nUse it so."
