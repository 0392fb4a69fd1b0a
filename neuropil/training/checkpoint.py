"""Saving everything needed to go on, as safetensors and JSON, in a way that survives a kill at any instant."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from neuropil.errors import CheckpointError

SCHEMA = 1
_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_TENSOR, _TUPLE, _KEYS = "__tensor__", "__tuple__", "__items__"


def flatten(tree: Any, tensors: dict[str, torch.Tensor], path: str = "") -> Any:
    """Plain JSON of `tree`, its tensors moved to `tensors` under their paths."""
    if isinstance(tree, torch.Tensor):
        tensors[path] = tree.detach().cpu().contiguous().clone()
        return {_TENSOR: path}
    if isinstance(tree, dict):
        if all(isinstance(key, str) for key in tree):
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
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    state = json.dumps(
        {"schema": SCHEMA, "step": step, "tree": flatten(tree, tensors)}, allow_nan=True
    ).encode()
    files = {_TENSORS: save(tensors), _STATE: state}
    digest = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    files[_MANIFEST] = json.dumps({"schema": SCHEMA, "sha256": digest}, indent=1).encode()
    target = root / f"step-{step:010d}"
    work = Path(tempfile.mkdtemp(prefix=".saving-", dir=root))
    try:
        for name, data in files.items():
            with open(work / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if target.exists():
            shutil.rmtree(target)
        os.rename(work, target)
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        raise CheckpointError(
            f"{target}: cannot be written ({error.strerror}); the last good checkpoint is kept"
        ) from None
    _sync(root)
    for old in checkpoints(root)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoints(directory: Path | str) -> list[Path]:
    """Checkpoints under `directory`, oldest first."""
    root = Path(directory)
    return sorted(path for path in root.glob("step-*") if path.is_dir()) if root.is_dir() else []


def read_checkpoint(path: Path | str) -> Any:
    """The tree saved at `path`, every byte checked.

    Raises:
        CheckpointError: a file is missing, truncated or altered, or the schema is newer than this version reads.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        if manifest["schema"] > SCHEMA:
            raise CheckpointError(
                f"{path}: schema {manifest['schema']}, this version reads up to {SCHEMA}; update neuropil"
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
