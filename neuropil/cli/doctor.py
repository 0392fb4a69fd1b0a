"""`neuropil doctor`: is this machine ready, and where does everything lie?"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import click

from neuropil import __version__
from neuropil.cli.options import json_option
from neuropil.cli.output import emit, one_line, table

EXTRAS = {
    "bench": ("scipy", "plotly", "jinja2"),
    "events": ("h5py",),
    "fabric": ("lightning-fabric",),
    "huggingface": ("datasets",),
    "language": ("transformers", "tokenizers", "gguf"),
    "nir": ("nir",),
    "parquet": ("pyarrow",),
    "plot": ("matplotlib",),
    "ray": ("ray",),
    "rl": ("stable-baselines3", "gymnasium"),
    "sound": ("soundfile",),
    "tensorboard": ("tensorboard",),
}


@click.command("doctor", short_help="is this machine ready?")
@json_option
def command(as_json: bool) -> int:
    """Tell what neuropil finds on this machine. Leaves with 1 when something must be repaired."""
    findings = examine()
    if as_json:
        emit(findings)
    else:
        table(["", "found"], [[name, _words(value)] for name, value in findings.items()])
    return int(bool(findings["problems"]))


def examine() -> dict[str, Any]:
    """Everything that the doctor looks at, by name; `problems` lists what must be repaired."""
    problems: list[str] = []
    cache = _cache(problems)
    return {
        "neuropil": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        **_torch(problems),
        **_numba(problems),
        **{f"extra {name}": _extra(name, packages) for name, packages in EXTRAS.items()},
        "compiler": shutil.which("g++") or shutil.which("clang++") or "none, only inductor needs one",
        "data": _data(),
        **cache,
        "evidence": _evidence(problems),
        "problems": problems,
    }


def _torch(problems: list[str]) -> dict[str, Any]:
    try:
        import torch
    except (ImportError, OSError) as error:
        problems.append(f"torch cannot be imported: {one_line(str(error))}")
        return {"torch": None}
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "accelerator": "cuda" if torch.cuda.is_available() else "none",
    }


def _numba(problems: list[str]) -> dict[str, Any]:
    try:
        import numba
    except (ImportError, OSError) as error:
        problems.append(f"numba cannot be imported, kernels fall back to plain torch: {one_line(str(error))}")
        return {"numba": None}
    kept = os.environ.get("NUMBA_CACHE_DIR") or str(Path(__file__).parents[1] / "kernels" / "__pycache__")
    return {
        "numba": numba.__version__,
        "kernel cache": f"{kept} ({'writable' if _writable(Path(kept)) else 'read-only'})",
    }


def _extra(name: str, packages: tuple[str, ...]) -> str:
    missing = []
    for package in packages:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    return f"without {', '.join(missing)}: pip install 'neuropil[{name}]'" if missing else "complete"


def _data() -> dict[str, str]:
    from neuropil import data

    rows = data.catalogue()
    return {row.name: "here" if row.present else f"neuropil data fetch {row.name}" for row in rows}


def _cache(problems: list[str]) -> dict[str, Any]:
    from neuropil.bench.store import cache_directory

    where = cache_directory()
    if not _writable(where):
        problems.append(f"the cache {where} cannot be written to; NEUROPIL_CACHE moves it")
    size = sum(path.stat().st_size for path in where.rglob("*") if path.is_file()) if where.is_dir() else 0
    return {"cache": str(where), "cache MB": round(size / 1e6, 1)}


def _evidence(problems: list[str]) -> dict[str, int]:
    from neuropil.bench import evidence

    rows = evidence.check()
    problems += [f"evidence of {row.id} is {row.state}: {row.reason}" for row in rows if row.state == "stale"]
    return dict(Counter(row.state for row in rows))


def _writable(directory: Path) -> bool:
    """Whether a file can be put there, or the directory could be made."""
    while not directory.is_dir() and directory != directory.parent:
        directory = directory.parent
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {word}" for name, word in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(value) or "none"
    return "none" if value is None else str(value)
