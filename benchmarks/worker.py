"""Runs in another environment's Python: sets contenders up and times a repetition per request.

Requests and answers are JSON lines on standard input and output. Needs nothing but numpy beside the peers.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import numpy as np


def load(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arrays(outputs):
    return {
        key: np.asarray(value.detach() if hasattr(value, "detach") else value)
        for key, value in (outputs or {}).items()
    }


BLOCK = 0.1  # seconds that a timing lasts at least


def timed(run, block=BLOCK):
    """Seconds per call among as many in a row as take `block` seconds, as in a training loop.

    Half as many go before them untimed: the caches need about ten calls to settle on arrays of a few megabytes. A
    call that takes longer than `block` does not depend on what they held, and is timed alone.
    """
    gc.collect()
    gc.disable()
    try:
        first = _lasting(run, 1)
        if first >= block:
            return first
        calls = max(1, round(block / first))
        _lasting(run, calls // 2)
        return _lasting(run, calls) / calls
    finally:
        gc.enable()


def _lasting(run, calls):
    started = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - started


def answer(request, runs):
    name = request["name"]
    if request["do"] == "make":
        with np.load(request["inputs"]) as data:
            runs[name] = getattr(load(request["script"]), request["function"])(dict(data))
        return {}
    if request["do"] == "run":
        return {"seconds": timed(runs[name], request["block"])}
    np.savez(request["path"], **arrays(runs[name]()))
    return {}


def main():
    sys.path.insert(0, str(Path(__file__).parent / "peers"))
    channel = os.fdopen(os.dup(1), "w")  # peers print what they like: to standard error
    os.dup2(2, 1)
    runs = {}
    for line in sys.stdin:
        try:
            result = answer(json.loads(line), runs)
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        channel.write(json.dumps(result) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
