"""Fifty files that want to run code, fill the memory or break what reads them."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Bomb:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch /tmp/neuropil-was-here",)


def tensors(header: Any, content: bytes = b"", size: int | None = None) -> bytes:
    """A file of tensors with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + content


def tensor(kind: str, shape: list[Any], offsets: list[Any]) -> dict[str, Any]:
    return {"x": {"dtype": kind, "shape": shape, "data_offsets": offsets}}


def tensor_files() -> Iterator[tuple[str, bytes]]:
    """Instead of `tensors.safetensors`."""
    yield "pickle", pickle.dumps(Bomb())
    yield "pickle of protocol 0", pickle.dumps(Bomb(), protocol=0)
    yield "pickle behind a header", tensors({}) + pickle.dumps(Bomb())
    yield "zip of a pickle", b"PK\x03\x04" + pickle.dumps(Bomb())
    yield "empty", b""
    yield "seven bytes", b"\x01\x02\x03\x04\x05\x06\x07"
    yield "header of 8 GB", tensors({}, size=8 << 30)
    yield "header of 2^64", struct.pack("<Q", 2**64 - 1) + b"{}"
    yield "header cut", tensors({"x": {}}, size=400)
    yield "header no JSON", tensors(b"{nonsense")
    yield "header a list", tensors([])
    yield "header of deep JSON", tensors(b"[" * 100_000)
    yield "header NaN", tensors(b'{"x":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', bytes(4))
    yield "negative offsets", tensors(tensor("F32", [1], [-4, 0]), bytes(4))
    yield "negative shape", tensors(tensor("F32", [-1], [0, 4]), bytes(4))
    yield "offsets beyond", tensors(tensor("F32", [1], [0, 4_000_000_000]), bytes(4))
    yield "offsets reversed", tensors(tensor("F32", [1], [4, 0]), bytes(4))
    yield "shape overflows", tensors(tensor("F32", [2**33, 2**33], [0, 4]), bytes(4))
    yield "shape beyond content", tensors(tensor("F32", [1000], [0, 4]), bytes(4))
    yield "unknown type", tensors(tensor("PICKLE", [1], [0, 4]), bytes(4))
    both = {
        "x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "y": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
    }
    yield "overlapping tensors", tensors(both, bytes(12))
    yield "a hole", tensors(tensor("F32", [1], [8, 12]), bytes(12))
    yield "huge metadata", tensors({"__metadata__": {"a": "b" * 5_000_000}})
    yield "metadata a list", tensors({"__metadata__": [1]})
    yield (
        "a name of a million letters",
        tensors({"x" * 10**6: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    )
    yield "other names", tensors({"y": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))


def state_files() -> Iterator[tuple[str, bytes]]:
    """Instead of `state.json`."""
    yield "state: pickle", pickle.dumps(Bomb())
    yield "state: deep", b"[" * 200_000
    yield "state: deep and closed", b"[" * 100_000 + b"]" * 100_000
    yield "state: a number of a million digits", b'{"tree": ' + b"9" * 10**6 + b"}"
    yield "state: no tree", b"{}"
    yield "state: a list", b"[]"
    yield "state: null", b"null"
    yield "state: not text", b"\xff\xfe\x00"
    yield "state: tensor not there", b'{"tree": {"__tensor__": "../../etc/passwd"}}'
    yield "state: tensor a list", b'{"tree": {"__tensor__": []}}'
    yield "state: keys no pairs", b'{"tree": {"__items__": [1, 2]}}'
    yield "state: keys unhashable", b'{"tree": {"__items__": [[[], 1]]}}'
    yield "state: tuple a number", b'{"tree": {"__tuple__": 3}}'
    yield "state: code", b'{"tree": {"__reduce__": ["os.system", "id"]}'


def manifests() -> Iterator[tuple[str, bytes]]:
    """Instead of `manifest.json`; the other files are good."""
    for name, value in {
        "a list": [], "a number": 1, "null": None, "no hashes": {"schema": 1},
        "hashes a list": {"schema": 1, "sha256": []},
        "hashes numbers": {"schema": 1, "sha256": {"tensors.safetensors": 1, "state.json": 2}},
        "schema text": {"schema": "1", "sha256": {}}, "schema a list": {"schema": [], "sha256": {}},
        "schema huge": {"schema": 10**400, "sha256": {}},
    }.items():  # fmt: skip
        yield f"manifest: {name}", json.dumps(value).encode()
    yield "manifest: deep", b"[" * 200_000


def checkpoints(root: Path) -> Iterator[tuple[str, Path]]:
    """Checkpoints whose manifest vouches for hostile files, as whoever made them would let it."""
    good = {
        "tensors.safetensors": tensors(tensor("F32", [1], [0, 4]), bytes(4)),
        "state.json": b'{"tree": 1}',
    }
    places = (("tensors.safetensors", tensor_files()), ("state.json", state_files()))
    for file, made in places:
        for name, content in made:
            files = {**good, file: content}
            if file == "tensors.safetensors":
                files["state.json"] = b'{"tree": {"__tensor__": "x"}}'
            digest = {each: hashlib.sha256(data).hexdigest() for each, data in files.items()}
            yield (
                name,
                _written(
                    root, files | {"manifest.json": json.dumps({"schema": 1, "sha256": digest}).encode()}
                ),
            )
    for name, content in manifests():
        yield name, _written(root, {**good, "manifest.json": content})


def _written(root: Path, files: dict[str, bytes]) -> Path:
    place = root / f"{1 + sum(1 for _ in root.iterdir()):06d}-step-1"
    place.mkdir()
    for name, data in files.items():
        (place / name).write_bytes(data)
    return place


def trials() -> Iterator[tuple[str, bytes]]:
    """Instead of a stored trial or run; some with the hash that fits."""
    yield "pickle", pickle.dumps(Bomb())
    yield "deep", b"[" * 200_000
    yield "NaN", b'{"schema": 1, "sha256": NaN, "trial": {}}'
    yield "digits", b"9" * 10**6
    yield "a number too large", b'{"schema": 1, "sha256": "", "trial": {"a": 1e999}}'
    yield "half a character", b'{"schema": 1, "sha256": "", "trial": {"a": "\\ud800"}}'
    yield "not text", b"\xff\xfe"
    for name, content in {
        "a list": [], "text": "x", "nothing": {}, "other fields": {"eval": "1"}, "a number": 1, "null": None,
    }.items():  # fmt: skip
        digest = hashlib.sha256(
            json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()
        yield f"trial: {name}", json.dumps({"schema": 1, "sha256": digest, "trial": content}).encode()


def archives() -> Iterator[tuple[str, bytes]]:
    """Instead of a gzipped data file."""
    yield "pickle", pickle.dumps(Bomb())
    yield "bomb", gzip.compress(bytes(300 << 20), 9)
    yield "cut", gzip.compress(bytes(1000))[:20]
    yield "empty", b""
