"""Running text as bytes, for language models: texts that are known by name, and one's own."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from neuropil.errors import ConfigError, DataError, MissingDataError, UnknownNameError, nearest

if TYPE_CHECKING:
    from jaxtyping import Int64

_EMBEDDED = Path(__file__).with_name("embedded") / "texts"
_PIECES = 40  # every fifth and every tenth of ten are for validation and test


class TextSource(NamedTuple):
    """A text that ships in the wheel."""

    title: str
    licence: str
    sha256: str  # of the uncompressed bytes
    path: Path


TEXTS = {
    "emma": TextSource(
        "Jane Austen, Emma (1815)",
        "public domain",
        "7c67b5985c6d0de1efaeb5d342d52cb82c38083c40e2295129e30e87ee690ebe",
        _EMBEDDED / "emma.txt.gz",
    ),
    "python": TextSource(
        "sources of 42 modules of Python's standard library, 3.11",
        "Python Software Foundation License 2",
        "50d920452757fd6baa10db1ceabff01dfb67d4ab71a467a32ee12d2ebdd6c0a4",
        _EMBEDDED / "python.txt.gz",
    ),
}


@dataclass(frozen=True, eq=False)
class Text:
    """A text cut into parts that never overlap; tokens are bytes, 0 to 255."""

    name: str
    train: Int64[Tensor, " train"]
    validation: Int64[Tensor, " validation"]
    test: Int64[Tensor, " test"]
    checksum: str  # SHA-256 of the bytes
    licence: str


def load_text(name: str) -> Text:
    """A text by name, verified by SHA-256: `"emma"`, a novel, or `"python"`, sources of the standard library.

    Both are part of the package, ASCII. Of forty pieces of equal length, cut at line ends, four are for validation
    and four for testing, spread evenly; the others are for training.

    Raises UnknownNameError for another name, MissingDataError when the file is gone and DataError when it is altered.

    >>> emma = load_text("emma")
    >>> as_text(emma.train[:4]), len(emma.test)
    ('EMMA', 88263)
    """
    if name not in TEXTS:
        raise UnknownNameError(f"no text is called {name[:40]!r}{nearest(name[:40], TEXTS)}")
    known = TEXTS[name]
    try:
        content = gzip.decompress(known.path.read_bytes())
    except FileNotFoundError:
        raise MissingDataError(
            f"text {name!r} is part of the package but {known.path} is missing; reinstall neuropil, "
            "or give a text of your own to own_text"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"text {name!r}: {known.path} cannot be read ({error}); reinstall neuropil") from None
    if hashlib.sha256(content).hexdigest() != known.sha256:
        raise DataError(f"text {name!r}: {known.path} is altered (SHA-256 differs); reinstall neuropil")
    return own_text(content, name=name, licence=known.licence)


def own_text(text: str | bytes, *, name: str = "own", licence: str = "") -> Text:
    """One's own text as bytes (UTF-8), cut as `load_text` says.

    Raises DataError when it is shorter than 4,000 bytes: too short for pieces.

    >>> own_text("To be, or not to be. " * 300).train.shape
    torch.Size([5040])
    """
    content = text.encode() if isinstance(text, str) else text
    if len(content) < 100 * _PIECES:
        raise DataError(f"own_text: got {len(content)} bytes, expected at least {100 * _PIECES}")
    parts: dict[str, list[bytes]] = {"train": [], "validation": [], "test": []}
    for number, piece in enumerate(_pieces(content)):
        parts[{4: "validation", 9: "test"}.get(number % 10, "train")].append(piece)
    tokens = {part: as_bytes(b"".join(pieces)) for part, pieces in parts.items()}
    return Text(name, **tokens, checksum=hashlib.sha256(content).hexdigest(), licence=licence)


def as_bytes(text: str | bytes) -> Int64[Tensor, " tokens"]:
    """Bytes of a text (UTF-8), each a token from 0 to 255.

    >>> as_bytes("ab")
    tensor([97, 98])
    """
    content = text.encode() if isinstance(text, str) else text
    if not content:
        return torch.zeros(0, dtype=torch.int64)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).long()


def as_text(tokens: Int64[Tensor, " tokens"]) -> str:
    """Text of byte tokens; what is no UTF-8 becomes a replacement character.

    Raises DataError for tokens outside 0 to 255.

    >>> as_text(torch.tensor([104, 105]))
    'hi'
    """
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) <= 255:
        raise DataError(f"as_text: got tokens up to {int(tokens.max())}, expected bytes from 0 to 255")
    return bytes(tokens.to(torch.uint8).flatten().tolist()).decode("utf-8", "replace")


def text_windows(
    tokens: Int64[Tensor, " tokens"], length: int, count: int, generator: torch.Generator
) -> Int64[Tensor, "count length"]:
    """Stretches of `length` tokens from places drawn at random.

    Raises ConfigError for a length or count below 1, DataError when the text is shorter than a stretch.

    >>> text_windows(torch.arange(10), 3, 2, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    if length < 1 or count < 1:
        raise ConfigError(f"text_windows: got length {length} and count {count}, expected both at least 1")
    if len(tokens) < length:
        raise DataError(f"text_windows: a text of {len(tokens)} tokens has no stretch of {length}")
    starts = torch.randint(len(tokens) - length + 1, (count, 1), generator=generator)
    return tokens[starts + torch.arange(length)]


def _pieces(content: bytes) -> list[bytes]:
    """Pieces of about equal length; each ends with a line where a line ends soon."""
    cuts = [0]
    for number in range(1, _PIECES):
        wanted = number * len(content) // _PIECES
        line = content.find(b"\n", wanted, wanted + len(content) // (2 * _PIECES)) + 1
        cuts.append(line or wanted)
    cuts.append(len(content))
    return [content[a:b] for a, b in itertools.pairwise(cuts)]
