"""Hostile files end in one line of ours; nothing in them runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.guarantee("R4"), pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = (
    "exec", "compile", "pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn",
    "os.spawn", "socket.connect", "socket.bind", "ctypes.dlopen", "marshal.loads", "code.__new__", "import",
)  # fmt: skip


def read_all(root: Path) -> dict[str, Any]:
    """Read every hostile file with everything that reads such files, nothing forbidden allowed to happen."""
    import resource

    from neuropil.bench import store
    from neuropil.data.images import read_idx
    from neuropil.data.sources import read_stored
    from neuropil.errors import NeuropilError
    from neuropil.training import read_checkpoint, save_checkpoint
    from neuropil.training.checkpoint import read_latest
    from tests.guarantees import hostile

    seen: list[str] = []
    watching = [False]

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if watching[0] and event in FORBIDDEN:
            seen.append(f"{event} {str(args)[:200]}")

    lines: dict[str, str] = {}

    def attempt(name: str, read: Callable[[], Any]) -> None:
        watching[0] = True
        try:
            read()
            lines[name] = "read as if nothing were wrong"
        except NeuropilError as error:
            lines[name] = "" if "\n" not in str(error) else f"many lines: {error}"
        except BaseException as error:
            lines[name] = f"{type(error).__name__}: {str(error)[:100]}"
        watching[0] = False

    good = root / "good"
    read_checkpoint(save_checkpoint(good, 1, {"x": 1}))  # whatever reading imports is imported now
    (root / "c").mkdir()
    (root / "t").mkdir()
    made = list(hostile.checkpoints(root / "c"))
    archives, trials = list(hostile.archives()), list(hostile.trials())
    for name, content in archives:
        (root / f"{name}.gz").write_bytes(content)
    for name, content in trials:
        (root / "t" / f"{name}.json").write_bytes(content)
        (root / f"run {name}").mkdir()
        (root / f"run {name}" / "run.json").write_bytes(content)
    attempt("warm", lambda: read_stored(root / "cut"))
    lines.clear()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.addaudithook(watch)
    for name, path in made:
        attempt(name, lambda: read_checkpoint(path))  # noqa: B023
    for name, _ in archives:
        attempt(f"{name}.gz", lambda: read_idx(read_stored(root / name)))  # noqa: B023
    for name, _ in trials:
        attempt(f"{name} as a trial", lambda: store.read_trial(root / "t" / f"{name}.json"))  # noqa: B023
        attempt(f"{name} as a run", lambda: store.read_run(root / f"run {name}"))  # noqa: B023
    tree, problems = read_latest(root / "c")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) // 1024
    return {
        "seen": seen, "lines": {k: v for k, v in lines.items() if v}, "files": len(lines),
        "all": tree is None and len(problems) == len(made), "megabytes": grown,
    }  # fmt: skip


def test_hostile_files_end_in_one_line_and_run_nothing(
    tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    mark = Path("/tmp/neuropil-was-here")
    done = subprocess.run(
        [sys.executable, "-m", "tests.guarantees.test_hostile", str(tmp_path)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    assert answer["seen"] == []
    assert answer["lines"] == {}
    assert answer["all"] and not mark.exists()
    assert answer["megabytes"] < 400, "a small file filled the memory"
    record_property("hostile files", answer["files"])
    assert answer["files"] >= 50


def test_the_watch_sees_a_pickle_at_work(tmp_path: Path) -> None:
    code = (
        "import sys, pickle\n"
        "from tests.guarantees.test_hostile import FORBIDDEN\n"
        "seen = []\n"
        "data = pickle.dumps(sys.getsizeof)\n"
        "sys.addaudithook(lambda event, args: seen.append(event) if event in FORBIDDEN else None)\n"
        "pickle.loads(data)\n"
        "eval('1')\n"
        "print(*seen)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ).stdout  # fmt: skip
    assert {"pickle.find_class", "exec", "compile"} <= set(out.split())


if __name__ == "__main__":
    print(json.dumps(read_all(Path(sys.argv[1]))))
