"""Texts are whole, their parts never overlap, and what is wrong with them is told in one line."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import pytest
import torch

from neuropil import data
from neuropil.data import texts
from neuropil.errors import ConfigError, DataError, MissingDataError, UnknownNameError


@pytest.mark.parametrize("name", data.TEXTS)
def test_parts_make_up_the_text_and_are_spread_over_it(name: str) -> None:
    text = data.load_text(name)
    content = gzip.decompress(data.TEXTS[name].path.read_bytes())
    assert len(text.train) + len(text.validation) + len(text.test) == len(content)
    for part in (text.validation, text.test):
        assert 0.09 < len(part) / len(content) < 0.11
    assert data.as_text(text.train[:2000]).encode() == content[:2000]
    assert all(int(part.max()) < 128 for part in (text.train, text.validation, text.test))


def test_pieces_are_each_in_one_part_and_end_with_lines() -> None:
    lines = [f"line {number}\n" for number in range(2000)]
    text = data.own_text("".join(lines))
    parts = [
        data.as_text(part).splitlines(keepends=True) for part in (text.train, text.validation, text.test)
    ]
    assert sorted(itertools.chain(*parts)) == sorted(lines)
    assert text.checksum != data.own_text("".join(lines) + "x").checksum


def test_windows_are_stretches_of_the_text_and_repeat_with_a_seed() -> None:
    tokens = torch.arange(50)
    first, second = (data.text_windows(tokens, 7, 100, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, second)
    assert bool((first.diff() == 1).all()) and first.min() == 0 and first.max() == 49
    with pytest.raises(DataError, match="no stretch of 51"):
        data.text_windows(tokens, 51, 1, torch.Generator())
    with pytest.raises(ConfigError, match="at least 1"):
        data.text_windows(tokens, 0, 1, torch.Generator())


def test_bytes_go_round() -> None:
    assert data.as_text(data.as_bytes("naïve")) == "naïve" and len(data.as_bytes("")) == 0
    with pytest.raises(DataError, match="256"):
        data.as_text(torch.tensor([256]))


def test_bad_texts_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'emma'"):
        data.load_text("ema")
    with pytest.raises(DataError, match="at least 4000"):
        data.own_text("short")
    for content, error, word in (
        (None, MissingDataError, "missing"),
        (b"no gzip", DataError, "cannot be read"),
        (gzip.compress(b"other"), DataError, "altered"),
    ):
        path = tmp_path / f"{word}.gz"
        if content is not None:
            path.write_bytes(content)
        monkeypatch.setitem(texts.TEXTS, "emma", data.TEXTS["emma"]._replace(path=path))
        with pytest.raises(error, match=word) as caught:
            data.load_text("emma")
        assert "\n" not in str(caught.value)
