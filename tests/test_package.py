"""The package as a whole: importing it changes nothing, and nothing dangerous or overgrown is in it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import neuropil

PACKAGE = Path(neuropil.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
MODULES = ("neuropil", "neuropil.nn", "neuropil.data", "neuropil.training")
LAZY = (
    "numba",
    "scipy",
    "plotly",
    "jinja2",
    "rich",
    "datasets",
    "lightning_fabric",
    "sklearn",
    "matplotlib",
    "stable_baselines3",
    "gymnasium",
)
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__"}

PROBE = """
import json, os, random, signal, sys, threading, warnings
import numpy, torch

def state():
    return {
        "python": repr(random.getstate()),
        "numpy": repr(numpy.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "cwd": os.getcwd(),
        "path": list(sys.path),
        "excepthook": repr(sys.excepthook),
        "displayhook": repr(sys.displayhook),
        "warnings": repr(warnings.filters),
        "environment": dict(os.environ),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads(), threading.active_count()],
        "dtype": repr(torch.get_default_dtype()),
        "device": repr(torch.get_default_device()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "signals": [repr(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
    }

before, known = state(), set(sys.modules)
import MODULE
after = state()
print(json.dumps({
    "changed": [name for name in before if before[name] != after[name]],
    "imported": sorted({name.partition(".")[0] for name in set(sys.modules) - known}),
}))
"""


@pytest.mark.parametrize("module", MODULES)
def test_importing_changes_nothing_and_brings_no_extras(module: str) -> None:
    probe = subprocess.run(
        [sys.executable, "-c", PROBE.replace("MODULE", module)], capture_output=True, text=True, check=True
    )
    seen = json.loads(probe.stdout)
    assert seen["changed"] == []
    assert set(seen["imported"]).isdisjoint(LAZY)
    assert probe.stderr == ""


@pytest.mark.parametrize("module", ["neuropil", "neuropil.cli.main", "neuropil.bench.catalogue"])
def test_what_answers_quickly_imports_no_torch(module: str) -> None:
    code = (
        f"import sys, {module}; print([name for name in ('torch', 'numpy', 'rich') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def banned(tree: ast.AST) -> Iterator[str]:
    """What must not be in the package: ways to run code that comes with data, and code made of text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").partition(".")[0]}
            if any(alias.name == "*" for alias in node.names):
                yield f"line {node.lineno}: star import"
        else:
            names = set()
        yield from (f"line {node.lineno}: imports {name}" for name in sorted(names & BANNED_MODULES))
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            pickled = any(
                word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords
            )
            if called in BANNED_CALLS or called in ("torch.load", "torch.save") or pickled:
                yield f"line {node.lineno}: calls {called}"
            if any(word.arg == "shell" and ast.unparse(word.value) != "False" for word in node.keywords):
                yield f"line {node.lineno}: runs a shell"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "from os import *",
        "eval('1')",
        "exec('1')",
        "torch.load('x')",
        "np.load('x', allow_pickle=True)",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_the_ban_sees_what_is_banned(code: str) -> None:
    assert list(banned(ast.parse(code)))


def test_the_ban_lets_ordinary_code_pass() -> None:
    assert not list(banned(ast.parse("np.load('x', allow_pickle=False); model.eval(); torch.compile(model)")))


def test_nothing_banned_is_in_the_package() -> None:
    found = {str(path.relative_to(PACKAGE)): list(banned(ast.parse(path.read_bytes()))) for path in FILES}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_files_stay_short() -> None:
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_functions_stay_short() -> None:
    long = {
        f"{path.relative_to(PACKAGE)}:{node.name}": length
        for path in FILES
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > 80
    }
    assert long == {}
