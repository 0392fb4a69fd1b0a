"""Byte-pair encoding: texts as tokens of a vocabulary that is learned from them, with the library `tokenizers`.

Sennrich, Haddow, Birch: Neural Machine Translation of Rare Words with Subword Units. ACL 2016. arXiv:1508.07909; from
bytes, so that every text can be encoded: Radford et al., Language Models are Unsupervised Multitask Learners, 2019.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuropil.data.texts import Text, as_text
from neuropil.errors import ConfigError, DataError, MissingExtraError

if TYPE_CHECKING:
    from jaxtyping import Int64

_BYTES = 256


class BytePairs:
    """A vocabulary of bytes and of the pairs that were merged most often; every text goes round unchanged.

    Made by `train_byte_pairs`, or with `BytePairs.from_json` from what `to_json` gave.

    >>> pairs = train_byte_pairs("to be or not to be, that is the question. " * 50, vocabulary=280)
    >>> tokens = pairs.encode("not to be")
    >>> len(tokens) < 9, pairs.decode(tokens), BytePairs.from_json(pairs.to_json()).encode("not to be").equal(tokens)
    (True, 'not to be', True)
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @property
    def vocabulary(self) -> int:
        """Number of tokens: what a model's embedding needs."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> Int64[Tensor, " tokens"]:
        """Tokens of a text."""
        return torch.tensor(self._tokenizer.encode(text).ids, dtype=torch.int64)

    def decode(self, tokens: Int64[Tensor, " tokens"]) -> str:
        """Text of some tokens; what is no UTF-8 becomes a replacement character.

        Raises DataError for a token outside the vocabulary.
        """
        found = tokens.flatten().tolist()
        wrong = [token for token in found if not 0 <= token < self.vocabulary]
        if wrong:
            raise DataError(
                f"BytePairs: token {wrong[0]} is outside the vocabulary, 0 to {self.vocabulary - 1}"
            )
        return str(self._tokenizer.decode(found))

    def encode_text(self, text: Text) -> Text:
        """A text of bytes, as of `load_text`, with the tokens of this vocabulary in its three parts."""
        train, validation, test = (
            self.encode(as_text(part)) for part in (text.train, text.validation, text.test)
        )
        name = f"{text.name}, {self.vocabulary} byte pairs"
        return replace(text, name=name, train=train, validation=validation, test=test)

    def to_json(self) -> str:
        """All there is to it, in the format of `tokenizers`."""
        return str(self._tokenizer.to_str())

    @classmethod
    def from_json(cls, content: str) -> BytePairs:
        """From what `to_json` gave. Raises DataError when it is not that."""
        try:
            return cls(_library().Tokenizer.from_str(content))
        except MissingExtraError:
            raise
        except Exception as error:  # the library raises a bare Exception
            raise DataError(f"BytePairs: not a vocabulary of tokenizers ({str(error)[:80]})") from None


def train_byte_pairs(text: str | Text, vocabulary: int = 512) -> BytePairs:
    """Learn a vocabulary: 256 bytes, and pairs merged in the order of how often they occur, words apart.

    The same text gives the same vocabulary. Of a `Text` only the training part is looked at. It may come out smaller
    than `vocabulary` when no pair is left.

    Raises ConfigError below 256 tokens, DataError for an empty text, MissingExtraError without `tokenizers`.

    >>> train_byte_pairs("low lower lowest " * 20, vocabulary=260).vocabulary
    260
    """
    if vocabulary < _BYTES:
        raise ConfigError(
            f"train_byte_pairs: vocabulary is {vocabulary}, expected at least the {_BYTES} bytes"
        )
    content = as_text(text.train) if isinstance(text, Text) else text
    if not content:
        raise DataError("train_byte_pairs: the text is empty")
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        show_progress=False,
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(content.splitlines(keepends=True), trainer)
    return BytePairs(tokenizer)


def _library() -> Any:
    try:
        import tokenizers  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("byte pairs need tokenizers: pip install 'neuropil[language]'") from None
    return tokenizers
