"""What a process does to a directory, step by step: to see it, to die at any step, to replay what power loss leaves.

The interpreter itself reports the steps (audit events), so that no way of writing is missed; only syncs, which it
does not report, are wrapped. The package holds no hook: nothing is paid when nobody looks.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any, NamedTuple


class Step(NamedTuple):
    """One change of the file system: `kind`, the path, the other path of a rename or the content of a sync."""

    kind: str
    path: str
    other: str = ""
    data: bytes = b""


KINDS = (
    "make folder", "create file", "sync file", "sync folder", "rename", "remove file", "remove folder",
)  # fmt: skip


class Disk:
    """Notes the steps below `root`; `die_at` is the number of the step before which the process kills itself.

    With `torn`, a file that is about to be synced is cut to half first, as when its blocks were written in part.
    """

    def __init__(self, root: Path, die_at: int | None = None, torn: bool = False) -> None:
        self.root, self.die_at, self.torn = str(root.resolve()), die_at, torn
        self.steps: list[Step] = []
        self.active = False
        sys.addaudithook(self._event)
        self._fsync = os.fsync
        os.fsync = self._sync

    def __enter__(self) -> Disk:
        self.active = True
        return self

    def __exit__(self, *_: object) -> None:
        self.active = False
        os.fsync = self._fsync

    def _event(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            writes = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not os.path.isdir(args[0]):
                self._note("create file", args[0])
        elif event == "os.mkdir":
            self._note("make folder", args[0], args[2])
        elif event == "os.rename":
            self._note("rename", args[0], args[2], other=args[1])
        elif event == "os.remove":
            self._note("remove file", args[0], args[1])
        elif event == "os.rmdir":
            self._note("remove folder", args[0], args[1])

    def _sync(self, handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        if self.active:
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                self._note("sync folder", path)
            else:
                self._note("sync file", path)
        self._fsync(handle)

    def _note(self, kind: str, path: Any, folder: int | None = None, other: Any = "") -> None:
        place, target = _absolute(path, folder), _absolute(other, folder) if other else ""
        if place != self.root and not place.startswith(self.root + os.sep):
            return
        self.active = False
        data = Path(place).read_bytes() if kind == "sync file" else b""
        if len(self.steps) == self.die_at:
            if self.torn and kind == "sync file":
                os.truncate(place, len(data) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        self.steps.append(Step(kind, place, target, data))
        self.active = True


def _absolute(path: Any, folder: int | None) -> str:
    text = os.fsdecode(path)
    if folder is not None and folder >= 0 and not os.path.isabs(text):
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)
    return os.path.abspath(text)
