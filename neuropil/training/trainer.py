"""The training loop: tasks, epochs, batches, with plugins, evaluation, checkpoints and resume."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from neuropil.data.batching import batches, n_batches
from neuropil.data.task import Batch, Stream, Task
from neuropil.errors import CheckpointError, ConfigError, LabelError, NeuropilError, NonFiniteError
from neuropil.nn.finite import check_finite
from neuropil.training.allowed import restrict
from neuropil.training.checkpoint import read_latest, save_checkpoint
from neuropil.training.evaluating import evaluating
from neuropil.training.history import History
from neuropil.training.interrupt import first_interrupt_waits
from neuropil.training.learner import Backprop, Learner, Loss
from neuropil.training.plugin import Plugin

Split = Literal["validation", "test"]
Position = tuple[int, int, int]  # task, epoch, batch to begin at


class Trainer:
    """Learns a stream of tasks and judges the model on every task met so far, after each.

    Args:
        model: any `nn.Module` with `inputs -> logits [batch, classes]`.
        optimizer: its state is cleared when a task begins, unless it has a `start_task()` that says otherwise.
        plugins: what else acts on the loop, in this order.
        loss: `(output, target) -> scalar`, cross-entropy by default.
        learner: how updates are made, instead of backpropagation of `loss`; brings its own model, optimizer and
            plugins.
        epochs: passes over each task.
        batch_size: samples per step; a task given as a DataLoader keeps its own.
        seed: of the order of samples.
        checkpoint: directory for checkpoints, written after every epoch and when interrupted.
        checkpoint_every: also after this many steps.
        fabric: a `lightning.fabric.Fabric` for devices, precision and several processes, already launched; see
            `Backprop`. A learner brings its own.
        progress: show a progress bar on the terminal.

    Raises:
        NonFiniteError: NaN or infinity in inputs, loss or gradients; names task and step. The step is not made.
        IncompatibleError: a plugin cannot work with the optimizer, or with another plugin.

    >>> from torch.utils.data import TensorDataset
    >>> data = TensorDataset(torch.randn(32, 4), torch.arange(32) % 2)
    >>> net = nn.Linear(4, 2)
    >>> trainer = Trainer(net, torch.optim.SGD(net.parameters(), lr=0.1), progress=False)
    >>> history = trainer.fit(Stream((Task("only", data, data, data),), n_classes=2))
    >>> 0 <= history.average_accuracy <= 1
    True
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        optimizer: Optimizer | None = None,
        *,
        plugins: Sequence[Plugin] = (),
        loss: Loss | None = None,
        learner: Learner | None = None,
        epochs: int = 1,
        batch_size: int = 64,
        seed: int = 0,
        checkpoint: Path | str | None = None,
        checkpoint_every: int | None = None,
        fabric: Any = None,
        progress: bool | None = None,
    ) -> None:
        for name, value in (("epochs", epochs), ("batch_size", batch_size)):
            if value < 1:
                raise ConfigError(f"Trainer.{name}: got {value}, expected at least 1")
        if learner is None:
            if model is None or optimizer is None:
                raise ConfigError("Trainer: give a model and an optimizer, or a learner")
            learner = Backprop(model, optimizer, loss=loss, plugins=plugins, fabric=fabric)
        elif any(given is not None for given in (model, optimizer, loss, fabric)) or plugins:
            raise ConfigError(
                "Trainer: a learner brings its model, optimizer, loss, plugins and fabric; give them to the learner"
            )
        self.learner, self.model, self.fabric = learner, learner.model, learner.fabric
        self.epochs, self.batch_size, self.seed = epochs, batch_size, seed
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.checkpoint_every = checkpoint_every
        self.progress = sys.stderr.isatty() if progress is None else progress
        self.history = History()
        self.step = 0
        self._start: Position = (0, 0, 0)
        self._position: Position | None = None  # to resume at; None while a step or a task's end is under way
        self._epoch_rng = torch.get_rng_state()

    def fit(
        self, stream: Stream | Sequence[Task], *, evaluate_on: Split = "test", resume: bool = False
    ) -> History:
        """Learn every task of `stream` in turn.

        After each task the model is judged on all tasks so far and on the next one, on `evaluate_on` samples.
        `resume` goes on from the newest whole checkpoint, if there is one; the same stream and settings give the
        same bits as a run without interruption (of tasks given as DataLoaders, where they have no generator of
        their own). Ctrl-C, and SIGTERM where there are checkpoints, end it after the step under way, with a
        checkpoint; a second one ends it at once.

        Raises:
            EmptyTaskError: the stream or one of its tasks is empty.
            CheckpointError: the checkpoint was made by another model, other plugins or another version.
        """
        stream = stream if isinstance(stream, Stream) else Stream(tuple(stream))
        self._position = None
        self.history, self.step, self._start = History(), 0, (0, 0, 0)
        for plugin in self.learner.plugins:
            plugin.beside(self.learner.plugins)
        for plugin in self.learner.plugins:
            plugin.before_fit(self.model, self.learner.optimizer)
        if not (resume and self._restore()):
            self.history.untrained = [self.evaluate(task, evaluate_on) for task in stream]
        try:
            waits = first_interrupt_waits(sigterm=self.checkpoint is not None)
            with self._bar(stream) as advance, waits as interrupted:
                for index in range(self._start[0], len(stream)):
                    for _ in self._learn(stream[index], index):
                        advance()
                        _stop_if(interrupted())
                    self._judge(stream, index, evaluate_on)
                    self._save((index + 1, 0, 0))
                    _stop_if(interrupted())
        except (KeyboardInterrupt, SystemExit):
            self._save_where_whole()
            raise
        for plugin in self.learner.plugins:
            plugin.after_fit()
        return self.history

    @torch.no_grad()
    def evaluate(self, task: Task, split: Split = "test") -> float:
        """Share of a task's samples answered rightly, among the task's classes where it names them.

        A class that the model has no output for, because its head has not grown yet, is never answered.
        """
        for plugin in self.learner.plugins:
            plugin.before_eval()
        right = total = 0
        with evaluating(self.model), _saying(lambda: f"task {task.name!r}, {split} samples"):
            device = self._device()
            for batch in batches(getattr(task, split), 500, shuffle=False):
                batch = self._place(batch, device)
                answer = _choose(self.learner.predict(batch.inputs), task.classes)
                right += int((answer == batch.targets).sum())
                total += len(batch.targets)
        return right / total

    def _learn(self, task: Task, index: int) -> Iterator[None]:
        """Learn one task; yields after each step, when `_position` is where to resume."""
        where = lambda: f"task {task.name!r}, step {self.step}"  # noqa: E731  (the step at the time of the error)
        with _saying(where, self._kept()):
            yield from self._steps(task, index)
            self._position = None
            for plugin in self.learner.plugins:
                plugin.after_task(task)

    def _steps(self, task: Task, index: int) -> Iterator[None]:
        first_epoch, first_batch = self._start[1:] if index == self._start[0] else (0, 0)
        if (first_epoch, first_batch) == (0, 0):
            self._position = None
            self.learner.start_task()
            for plugin in self.learner.plugins:
                plugin.before_task(task)
        self.model.train()
        device = self._device()
        for epoch in range(first_epoch, self.epochs):
            start = first_batch if epoch == first_epoch else 0
            if start == 0:
                for plugin in self.learner.plugins:
                    plugin.before_epoch(epoch)
            for number, batch in enumerate(self._batches(task, index, epoch, start), start):
                self._position = None
                measured = self.learner.update(self._place(batch, device))
                self.history.losses.append(measured["loss"])
                self.step += 1
                self._position = (index, epoch, number + 1)
                if self.checkpoint_every and self.step % self.checkpoint_every == 0:
                    self._save(self._position)
                yield
            self._save((index, epoch + 1, 0))

    def _batches(self, task: Task, index: int, epoch: int, start: int) -> Iterator[Batch]:
        """Batches of an epoch from `start` on, the same ones whether or not it was interrupted there."""
        draw = partial(
            batches, task.train, self.batch_size, seed=self.seed + 1_000_003 * index, epoch=epoch, classes=task.classes
        )  # fmt: skip
        if not start:
            self._epoch_rng = torch.get_rng_state()
        if not start or not isinstance(task.train, DataLoader):
            yield from draw(start=start)
            return
        # A DataLoader draws its order from torch's state: draw it as it was, then go on from the state now.
        now = torch.get_rng_state()
        torch.set_rng_state(self._epoch_rng)
        order = draw(start=start - 1)
        next(order)
        torch.set_rng_state(now)
        yield from order

    def _judge(self, stream: Stream, index: int, split: Split) -> None:
        row: list[float | None] = [
            self.evaluate(task, split) if i <= index + 1 else None for i, task in enumerate(stream)
        ]
        self.history.accuracy_matrix.append(row)

    def _device(self) -> torch.device:
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def _place(self, batch: Batch, device: torch.device) -> Batch:
        if self.fabric is None:
            if device.type == "cpu":
                return batch
            return Batch(batch.inputs.to(device), batch.targets.to(device), batch.classes)
        inputs, targets = self.fabric.to_device((batch.inputs, batch.targets))
        return Batch(inputs, targets, batch.classes)

    def _kept(self) -> str:
        return "" if self.checkpoint is None else f"; the last good checkpoint is in {self.checkpoint}"

    def _save_where_whole(self) -> None:
        if self._position is not None:
            self._save(self._position)

    def _save(self, position: Position) -> None:
        self._position = position
        if self.checkpoint is None or (self.fabric is not None and self.fabric.global_rank != 0):
            return
        for name, parameter in self.model.named_parameters():
            check_finite(parameter, f"{name}, before saving step {self.step}")
        tree = {
            "model": dict(self.model.state_dict()),
            "learner": self.learner.state_dict(),
            "plugins": [plugin.state_dict() for plugin in self.learner.plugins],
            "history": self.history.state_dict(),
            "step": self.step,
            "position": list(position),
            "torch_rng": torch.get_rng_state(),
            "epoch_rng": self._epoch_rng,
        }
        save_checkpoint(self.checkpoint, self.step, tree)

    def _restore(self) -> bool:
        if self.checkpoint is None:
            raise ConfigError("Trainer.fit(resume=True): give Trainer a checkpoint directory")
        tree, problems = read_latest(self.checkpoint)
        for line in problems:
            warnings.warn(f"fell back to an earlier checkpoint: {line}", stacklevel=3)
        if tree is None:
            return False
        plugins = self.learner.plugins
        try:
            for plugin, state in zip(plugins, tree["plugins"], strict=True):
                plugin.load_state_dict(state)
            self.model.load_state_dict(tree["model"])
            self.learner.load_state_dict(tree["learner"])
            self.history = History(**tree["history"])
            self.step, self._start = tree["step"], tuple(tree["position"])
            self._epoch_rng = tree["epoch_rng"]
            torch.set_rng_state(tree["torch_rng"])
        except NeuropilError:
            raise
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"{self.checkpoint}: made by another model or other plugins ({line})"
            ) from None
        return True

    @contextmanager
    def _bar(self, stream: Stream) -> Iterator[Any]:
        if not self.progress:
            yield lambda: None
            return
        from rich.progress import Progress  # noqa: PLC0415  (only where a bar is shown)

        total = sum(self.epochs * n_batches(task.train, self.batch_size) for task in stream)
        with Progress(transient=True) as bar:
            line = bar.add_task(stream.name, total=total, completed=self.step)
            yield lambda: bar.advance(line)


def _choose(logits: torch.Tensor, classes: tuple[int, ...] | None) -> torch.Tensor:
    """The answer to each sample, among the classes that are allowed and there; -1 where none is."""
    there = None if classes is None else tuple(c for c in classes if c < logits.shape[-1])
    if there == ():
        return torch.full(logits.shape[:-1], -1, device=logits.device)
    return restrict(logits, there).argmax(-1)


def _stop_if(interrupted: int | None) -> None:
    if interrupted == signal.SIGINT:
        raise KeyboardInterrupt
    if interrupted is not None:
        raise SystemExit(128 + interrupted)


@contextmanager
def _saying(where: Callable[[], str], after: str = "") -> Iterator[None]:
    """Say in the line of an error of data or loss where it was met."""
    try:
        yield
    except (NonFiniteError, LabelError) as error:
        raise type(error)(f"{where()}: {error}{after}") from None
