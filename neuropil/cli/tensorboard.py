"""What a run measures, as TensorBoard reads it: every trial a run of its own, its curves and metrics as scalars."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuropil.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from neuropil.bench.progress import Event, Listener


@contextlib.contextmanager
def tensorboard(listener: Listener, logs: Path | None, run: Path) -> Iterator[Listener]:
    """A listener that also writes each trial into `logs` as soon as `run` holds it; `listener` alone without `logs`.

    Raises MissingExtraError without TensorBoard and ConfigError when `logs` is a file.
    """
    if logs is None:
        yield listener
        return
    if logs.exists() and not logs.is_dir():
        raise ConfigError(f"--tensorboard {logs}: is a file, expected a directory")
    writer = _writer()

    def both(event: Event) -> None:
        if event.kind in ("cached", "finished") and event.arm is not None and event.seed is not None:
            _write(writer, logs, run, event.arm, event.seed)
        listener(event)

    yield both


def _write(writer: Any, logs: Path, run: Path, arm: str, seed: int) -> None:
    from neuropil.bench.store import read_trial, trial_file

    record = read_trial(trial_file(run, arm, seed))
    with writer(logs / run.name / f"{arm}-{seed}") as out:
        for name, values in record.curves.items():
            for step, value in enumerate(values):
                if value is not None:
                    out.add_scalar(f"curve/{name}", value, step)
        for name, value in record.metrics.items():
            if value is not None:
                out.add_scalar(f"metric/{name}", value, 0)
        for name, value in record.cost.items():
            out.add_scalar(f"cost/{name}", value, 0)


def _writer() -> Any:
    """TensorBoard's writer of one directory, as a context manager."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            "--tensorboard needs tensorboard; pip install 'neuropil[tensorboard]'"
        ) from error
    return SummaryWriter
