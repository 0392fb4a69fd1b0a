"""The automaton finds the phrases that searching the text finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuropil.errors import DataError
from neuropil.kernels import lempel_ziv
from neuropil.kernels.lempel_ziv import lempel_ziv_counts, lempel_ziv_ends, phrase_ends_reference

texts = st.integers(1, 4).flatmap(lambda k: st.lists(st.integers(0, k - 1), max_size=80)).map(bytes)


@settings(deadline=None)
@given(texts, st.integers(1, 3))
def test_the_automaton_equals_the_search(text: bytes, times: int) -> None:
    text = text * times
    assert lempel_ziv_ends(np.frombuffer(text, np.uint8)).tolist() == phrase_ends_reference(text)


def test_rows_are_counted_each_for_itself() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.random((50, 300)) < rng.random((50, 1))).astype(np.uint8)
    assert lempel_ziv_counts(rows).tolist() == [len(phrase_ends_reference(row.tobytes())) for row in rows]
    assert lempel_ziv_counts(rows[:, ::2]).tolist() == [
        len(phrase_ends_reference(row[::2].tobytes())) for row in rows
    ]


def test_without_numba_the_search_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (np.random.default_rng(0).random((5, 100)) < 0.2).astype(np.uint8)
    expected, ends = lempel_ziv_counts(rows).tolist(), lempel_ziv_ends(rows[0]).tolist()
    monkeypatch.setattr(lempel_ziv, "HAS_NUMBA", False)
    assert lempel_ziv_counts(rows).tolist() == expected and lempel_ziv_ends(rows[0]).tolist() == ends


def test_nothing_has_no_phrases() -> None:
    assert lempel_ziv_ends(np.zeros(0, np.uint8)).tolist() == []
    assert lempel_ziv_counts(np.zeros((2, 0), np.uint8)).tolist() == [0, 0]


def test_other_arrays_are_refused() -> None:
    with pytest.raises(DataError, match="expected bytes"):
        lempel_ziv_ends(np.zeros(3))
    with pytest.raises(DataError, match="expected bytes"):
        lempel_ziv_counts(np.zeros(3, np.uint8))
