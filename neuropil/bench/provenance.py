"""Where numbers come from: the code that a study runs and the machine that ran it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from neuropil.bench import catalogue
from neuropil.bench.code import FileHash, hash_files
from neuropil.bench.study import Study
from neuropil.errors import NeuropilError, UnknownNameError


def code_of(study: Study) -> dict[str, FileHash]:
    """Hashes of every file that the study's trials run.

    The study file is that of its trial function when the study is not catalogued.
    """
    trial = getattr(study.trial, "func", study.trial)
    files = [_file_of(trial), *(_file_of(type(config)) for config in study.arms.values())]
    try:
        own, mechanism = catalogue.study_path(study.id), catalogue.mechanism_path(study.id)
    except UnknownNameError:
        own, mechanism = None, None
    return hash_files(
        own if own is not None and own.is_file() else files[0],
        mechanism if mechanism is not None and mechanism.is_file() else None,
        [file for file in files if file is not None],
        catalogue.PACKAGE,
    )


def data_of(study: Study, configs: Mapping[str, Any]) -> dict[str, str | None]:
    """Checksum of the data that each arm reads; None where the study names none."""
    return {arm: _checksum(study, config) for arm, config in configs.items()}


def _checksum(study: Study, config: Any) -> str | None:
    if study.data is None:
        return None
    try:
        return study.data(config)
    except NeuropilError as error:
        # the data says what is wrong with a name, not which setting gave it
        blamed = [
            f.name
            for f in fields(config)
            if isinstance(value := getattr(config, f.name), str) and repr(value)[:40] in str(error)
        ]
        if not blamed or str(error).startswith(f"{blamed[0]}:"):
            raise
        raise type(error)(f"{blamed[0]}: {error}") from None


def version(package: str) -> str | None:
    """Version of an installed package, without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """Processor, cores, system and versions."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: version(package) for package in ("neuropil", "torch", "numpy", "numba", "scipy")},
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _file_of(thing: Any) -> Path | None:
    file = getattr(sys.modules.get(thing.__module__), "__file__", None)
    return Path(file).resolve() if file else None
