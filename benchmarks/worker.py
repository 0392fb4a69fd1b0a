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


def timed(run, calls):
    gc.collect()
    gc.disable()
    started = time.perf_counter()
    for _ in range(calls):
        run()
    seconds = (time.perf_counter() - started) / calls
    gc.enable()
    return seconds


def answer(request, runs):
    name = request["name"]
    if request["do"] == "make":
        with np.load(request["inputs"]) as data:
            runs[name] = getattr(load(request["script"]), request["function"])(dict(data))
        return {}
    if request["do"] == "run":
        return {"seconds": timed(runs[name], request["calls"])}
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
