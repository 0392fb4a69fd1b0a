"""Importing, training, running a study and reporting open no connection, in the process and in its workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.guarantee("R6"), pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]

# Every Python process that is started with it notes what it does with sockets.
WATCH = """
import os, sys
def watch(event, args):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "urllib.Request"):
        if not (event in ("socket.connect", "socket.bind") and isinstance(args[1], (str, bytes))):
            with open(os.environ["WATCH_LOG"], "a") as log:
                log.write(f"{os.getpid()} {event} {args!r:.200}\\n")
with open(os.environ["WATCH_LOG"] + ".started", "a") as log:
    log.write(f"{os.getpid()}\\n")
sys.addaudithook(watch)
"""

EVERYTHING = """
import importlib, pkgutil, sys
import neuropil
for module in pkgutil.walk_packages(neuropil.__path__, "neuropil."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from neuropil import data
data.load("mnist"), data.fetch("fashion-mnist"), data.catalogue()
from tests.guarantees.lives import live
live("HLOP of spikes with rehearsal", None)
"""


def watched(place: Path, *words: str) -> tuple[str, int]:
    """What a command and its workers did with sockets, and how many processes were watched."""
    (place / "site").mkdir(exist_ok=True)
    (place / "site" / "sitecustomize.py").write_text(WATCH)
    log = place / "log"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{place / 'site'}{os.pathsep}{ROOT}",
        "WATCH_LOG": str(log),
        "NEUROPIL_CACHE": str(place / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    processes = len(set((place / "log.started").read_text().split()))
    return log.read_text() if log.exists() else "", processes


def test_importing_everything_and_training_stay_silent(tmp_path: Path) -> None:
    said, processes = watched(tmp_path, "-c", EVERYTHING)
    assert said == "" and processes >= 1


def test_the_command_and_its_workers_stay_silent(tmp_path: Path) -> None:
    driver = ("-m", "tests.cli.driver", str(tmp_path))
    (tmp_path / "results").mkdir()
    said, processes = watched(
        tmp_path, *driver, "run", "alpha", "--scale", "smoke", "--jobs", "2", "--out", "run"
    )
    assert said == "" and processes >= 2, "the workers were not watched"
    for words in (("report", "run"), ("list", "--json"), ("show", "alpha"), ("data", "list")):
        assert watched(tmp_path, *driver, *words)[0] == ""


def test_the_watch_hears_a_connection(tmp_path: Path) -> None:
    code = "import socket\nwith socket.socket() as s: s.bind(('127.0.0.1', 0))"
    assert "socket.bind" in watched(tmp_path, "-c", code)[0]
