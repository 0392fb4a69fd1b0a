"""A short life of learning that can be killed anywhere: `python -m tests.training.living DIRECTORY POINT COUNT`."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from neuropil.continual import HLOP, Replay
from neuropil.data import Task
from neuropil.training import History, Plugin, Trainer
from tests.training.worlds import mlp, sgd, stream


class Death(Plugin):
    """Calls `act` when `point` is passed for the `count`-th time."""

    def __init__(self, point: str, count: int, act: Any) -> None:
        self.point, self.left, self.act = point, count, act

    def pass_by(self, point: str) -> None:
        self.left -= point == self.point
        if self.left == 0 and point == self.point:
            self.act()

    def before_batch(self, batch: Any) -> Any:
        self.pass_by("before_batch")
        return batch

    def on_loss(self, loss: Any, context: Any) -> Any:
        self.pass_by("on_loss")
        return loss

    def after_step(self) -> None:
        self.pass_by("after_step")

    def before_task(self, task: Task) -> None:
        self.pass_by("before_task")

    def after_task(self, task: Task) -> None:
        self.pass_by("after_task")

    def before_eval(self) -> None:
        self.pass_by("before_eval")


def live(directory: Path | None, death: Plugin | None = None, *, resume: bool = True) -> tuple[str, History]:
    """Learn three tasks with dropout, projection and replay; the digest of what came out, and the history."""
    from torch import Generator

    model = mlp(dropout=0.2)
    plugins: list[Plugin] = [
        HLOP(model, tasks=3, generator=Generator().manual_seed(1)),
        Replay(per_class=3, generator=Generator().manual_seed(2)),
        death or Death("never", 1, None),
    ]
    trainer = Trainer(
        model, sgd(model), plugins=plugins, batch_size=16, epochs=2, progress=False,
        checkpoint=directory, checkpoint_every=2 if directory else None,
    )  # fmt: skip
    history = trainer.fit(stream(3), resume=resume and directory is not None)
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    digest.update(repr(history.state_dict()).encode())
    return digest.hexdigest(), history


def main() -> None:
    directory, point, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    death = Death(point, count, lambda: os.kill(os.getpid(), signal.SIGKILL))
    for name, real in (("fsync", os.fsync), ("rename", os.rename)):

        def dying(*args: Any, name: str = name, call: Any = real) -> Any:
            death.pass_by(f"before_{name}")
            call(*args)
            death.pass_by(f"after_{name}")

        setattr(os, name, dying)
    print(live(directory, death)[0])


if __name__ == "__main__":
    main()
