"""Ways to damage files: what a bad disk, a cut copy or a careless hand does."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path


def flip(data: bytearray, draw: random.Random) -> None:
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data)) :]


def extend(data: bytearray, draw: random.Random) -> None:
    data += bytes(draw.randrange(256) for _ in range(draw.randrange(1, 20)))


def blank(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    end = min(len(data), start + draw.choice((1, 8, 512)))
    data[start:end] = bytes(end - start)


def repeat(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    data[start:start] = data[start : start + draw.choice((1, 8, 64))]


def swap(data: bytearray, draw: random.Random) -> None:
    a, b = draw.randrange(len(data)), draw.randrange(len(data))
    data[a], data[b] = data[b], data[a]


def overwrite(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    for place in range(start, min(len(data), start + draw.randrange(1, 30))):
        data[place] = draw.randrange(256)


def digit(data: bytearray, draw: random.Random) -> None:
    """Another digit in the place of one, which leaves JSON valid."""
    places = [i for i, byte in enumerate(data) if chr(byte).isdigit()] or [0]
    data[draw.choice(places)] = ord(draw.choice("0123456789"))


IN_FILE: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip, flip, cut, extend, blank, repeat, swap, overwrite, digit,
)  # fmt: skip


def damage_file(path: Path, draw: random.Random) -> str:
    """Damage a file's content; what was done."""
    how = draw.choice(IN_FILE)
    data = bytearray(path.read_bytes())
    how(data, draw)
    path.write_bytes(data)
    return f"{how.__name__} {path.name}"


def damage_folder(folder: Path, other: Path, draw: random.Random) -> str:
    """Damage a folder of files in any way, also with files of another one; what was done."""
    files = sorted(folder.iterdir())
    a, b = draw.sample(files, 2)
    chance = draw.random()
    if chance < 0.85:
        return damage_file(a, draw)
    if chance < 0.89:
        a.unlink()
        return f"remove {a.name}"
    if chance < 0.93:
        kept = a.read_bytes()
        a.write_bytes(b.read_bytes())
        b.write_bytes(kept)
        return f"swap {a.name} and {b.name}"
    if chance < 0.97:
        shutil.copy(other / a.name, a)
        return f"{a.name} of another"
    a.unlink()
    a.mkdir()
    return f"a folder instead of {a.name}"
