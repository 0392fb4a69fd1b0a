"""Trials and runs on disk: content-addressed cache, run directories, durable writes."""

from __future__ import annotations

from pathlib import Path

from neuropil.bench.result import Result


def cache_directory() -> Path:
    """`NEUROPIL_CACHE`, or the user's cache directory. (being written)"""
    raise NotImplementedError


def read_run(directory: Path | str) -> Result:
    """The run stored in a directory, finished or not. (being written)"""
    raise NotImplementedError
