"""Saving everything needed to go on, as safetensors and JSON, in a way that survives a kill at any instant."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from neuropil.errors import CheckpointError, ConfigError

SCHEMA = 1
_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_WORK = ".saving-"
_TENSOR, _TUPLE, _KEYS = "__tensor__", "__tuple__", "__items__"


def flatten(tree: Any, tensors: dict[str, torch.Tensor], path: str = "") -> Any:
    """Plain JSON of `tree`, its tensors moved to `tensors` under their paths."""
    if isinstance(tree, torch.Tensor) and tree.layout == torch.strided:
        place = path if path not in tensors else f"{path}#{len(tensors)}"  # keys "a/b" and "a", "b" meet
        tensors[place] = tree.detach().cpu().contiguous().clone()
        return {_TENSOR: place}
    if isinstance(tree, dict):
        for key in tree:
            if not (key is None or isinstance(key, bool | int | float | str)):
                raise CheckpointError(
                    f"{path or '/'}: a {type(key).__name__} cannot be a key; use strings or numbers"
                )
        if all(isinstance(key, str) and key not in (_TENSOR, _TUPLE, _KEYS) for key in tree):
            return {key: flatten(value, tensors, f"{path}/{key}") for key, value in tree.items()}
        return {_KEYS: [[key, flatten(value, tensors, f"{path}/{key}")] for key, value in tree.items()]}
    if isinstance(tree, tuple):
        return {_TUPLE: [flatten(value, tensors, f"{path}/{i}") for i, value in enumerate(tree)]}
    if isinstance(tree, list):
        return [flatten(value, tensors, f"{path}/{i}") for i, value in enumerate(tree)]
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise CheckpointError(
        f"{path or '/'}: a {type(tree).__name__} cannot be saved; use tensors, numbers, strings, lists, dicts"
    )


def unflatten(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Inverse of `flatten`."""
    if isinstance(tree, dict):
        if _TENSOR in tree:
            return tensors[tree[_TENSOR]]
        if _TUPLE in tree:
            return tuple(unflatten(value, tensors) for value in tree[_TUPLE])
        if _KEYS in tree:
            return {key: unflatten(value, tensors) for key, value in tree[_KEYS]}
        return {key: unflatten(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list):
        return [unflatten(value, tensors) for value in tree]
    return tree


def save_checkpoint(directory: Path | str, step: int, tree: Any, *, keep: int = 2) -> Path:
    """Write `tree` as checkpoint `step` under `directory`; the last `keep` remain.

    The files are written and synced in a temporary folder beside their place, which is then renamed: a reader
    finds a whole checkpoint or none. Every file's SHA-256 stands in the manifest.
    """
    if keep < 1:
        raise ConfigError(f"save_checkpoint.keep: got {keep}, expected at least 1")
    root, files = Path(directory), _files(step, tree)
    try:
        root.mkdir(parents=True, exist_ok=True)
        saved = checkpoints(root)
        # Numbered by when it was saved: what an earlier run left at a later step must not count as newer.
        number = 1 + int(saved[-1].name.partition("-")[0]) if saved else 1
        target = root / f"{number:06d}-step-{step}"
        work = Path(tempfile.mkdtemp(prefix=_WORK, dir=root))
        for name, data in files.items():
            with open(work / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _sync(work)
        os.rename(work, target)
    except OSError as error:
        _remove(root.glob(f"{_WORK}*"))
        raise CheckpointError(
            f"{root}: step {step} cannot be saved ({error.strerror}); the last good checkpoint is kept"
        ) from None
    _sync(root)
    _remove([*checkpoints(root)[:-keep], *root.glob(f"{_WORK}*")])  # also what a killed process left behind
    return target


def _files(step: int, tree: Any) -> dict[str, bytes]:
    tensors: dict[str, torch.Tensor] = {}
    flat = flatten(tree, tensors)
    try:
        files = {_TENSORS: save(tensors), _STATE: json.dumps({"step": step, "tree": flat}).encode()}
    except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"step {step}: a tensor is of a kind that cannot be saved ({error})") from None
    digest = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return {**files, _MANIFEST: json.dumps({"schema": SCHEMA, "sha256": digest}).encode()}


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def checkpoints(directory: Path | str) -> list[Path]:
    """Checkpoints under `directory`, oldest first."""
    root = Path(directory)
    return sorted(path for path in root.glob("[0-9]*-step-*") if path.is_dir()) if root.is_dir() else []


def read_checkpoint(path: Path | str) -> Any:
    """The tree saved at `path`, every byte checked.

    Raises:
        CheckpointError: a file is missing, truncated or altered, or the schema is newer than this version reads.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        schema = manifest["schema"]
        if schema != SCHEMA:
            known = isinstance(schema, int) and schema > SCHEMA
            raise CheckpointError(
                f"{path}: schema {schema!r}, this version reads {SCHEMA}{'; update neuropil' if known else ''}"
            )
        data = {name: (path / name).read_bytes() for name in (_TENSORS, _STATE)}
        for name, content in data.items():
            found = hashlib.sha256(content).hexdigest()
            if found != manifest["sha256"][name]:
                raise CheckpointError(
                    f"{path / name}: altered (expected {manifest['sha256'][name][:12]}, found {found[:12]})"
                )
        return unflatten(json.loads(data[_STATE])["tree"], load(data[_TENSORS]))
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); a file is missing") from None
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a checkpoint ({type(error).__name__})") from None


def read_latest(directory: Path | str) -> tuple[Any, list[str]]:
    """The newest checkpoint that is whole, and a line on each newer one that is not; None when there is none."""
    problems: list[str] = []
    for path in reversed(checkpoints(directory)):
        try:
            return read_checkpoint(path), problems
        except CheckpointError as error:
            problems.append(str(error))
    return None, problems


def _sync(directory: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can sync a directory
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
