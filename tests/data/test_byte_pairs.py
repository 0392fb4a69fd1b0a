"""Byte pairs: merges are those counted by hand, texts go round, and a decoder learns from them."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuropil import data
from neuropil.errors import ConfigError, DataError, MissingExtraError
from neuropil.nn import Decoder
from neuropil.training import train_language_model, windows_of

pytest.importorskip("tokenizers")
EMMA = data.load_text("emma")
PAIRS = data.train_byte_pairs(data.as_text(EMMA.train[:60_000]), vocabulary=400)


def test_the_first_merges_are_the_pairs_counted_most() -> None:
    words = ["ab"] * 7 + ["abc"] * 5 + ["xy"] * 3  # pairs: ab 12, bc 5, then (ab)c 5, xy 3
    pairs = data.train_byte_pairs("\n".join(words), vocabulary=258)
    merged = [pairs.decode(torch.tensor([token])) for token in (256, 257)]
    assert merged == ["ab", "abc"]
    assert pairs.encode("abcab").tolist() == [257, 256]


@given(st.text(max_size=60))
def test_every_text_goes_round(text: str) -> None:
    assert PAIRS.decode(PAIRS.encode(text)) == text


def test_the_same_text_gives_the_same_vocabulary_and_parts_do_not_mix() -> None:
    again = data.train_byte_pairs(data.as_text(EMMA.train[:60_000]), vocabulary=400)
    assert again.to_json() == PAIRS.to_json() and PAIRS.vocabulary == 400
    encoded = PAIRS.encode_text(EMMA)
    for part in ("train", "validation", "test"):
        own = getattr(encoded, part)
        assert PAIRS.decode(own) == data.as_text(getattr(EMMA, part))
        assert len(own) < 0.75 * len(getattr(EMMA, part))
    only_training = data.own_text(b"a b\n" * 1000)
    assert data.train_byte_pairs(only_training, 300).vocabulary < 300  # a novel would have had more pairs
    frequent = Counter(encoded.train.tolist()).most_common(1)[0][0]
    assert 0 <= frequent < 400


def test_a_decoder_learns_from_them() -> None:
    torch.manual_seed(0)
    model = Decoder(PAIRS.vocabulary, width=16, layers=1, heads=2)
    draw = windows_of(PAIRS.encode(data.as_text(EMMA.train[:20_000])), 16, 16)
    losses = train_language_model(model, draw, steps=40, lr=0.02, generator=torch.Generator().manual_seed(0))
    assert losses[0] > 5.5 and losses[-1] < losses[0] - 0.8


def test_bad_input_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, word, call in (
        (ConfigError, "vocabulary is 100", lambda: data.train_byte_pairs("abc", 100)),
        (DataError, "text is empty", lambda: data.train_byte_pairs("")),
        (DataError, "token 400 is outside", lambda: PAIRS.decode(torch.tensor([3, 400]))),
        (DataError, "not a vocabulary", lambda: data.BytePairs.from_json("{}")),
    ):
        with pytest.raises(error, match=word) as caught:
            call()
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"neuropil\[language\]"):
        data.train_byte_pairs("abc")
