"""What will happen, and when: two readouts of one reservoir that learn by local rules.

Joint encoding of "what" and "when" predictions through error-modulated plasticity in reservoir spiking networks (2025;
Communications Biology 2026). Constants are a reconstruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.utils.data import Dataset

from neuropil.errors import ConfigError, LabelError, ShapeError, nearest
from neuropil.spiking.arrays import check_whole, finite_array

Array = np.ndarray[Any, Any]
Gate = Literal["window", "channel", "open"]


class WhatWhenReadout(BaseEstimator):  # type: ignore[misc]
    """Predicts which of some events follows a cue, and when, from the activity of a reservoir.

    `what`: a probability of every event, `p = clip(W_what mean(r), 0, 1)`, learned once at the end of a trial by the
    delta rule. `when`: a bump at the time of every event, `z(t) = W_when r(t)`, learned at every step by three factors,
    `dW_c = lr G_c(t) (bump_c(t) - z_c(t)) r(t)`: presynaptic activity, error, and a gate that opens only for the event
    that occurred, around its time. The answer is the product `p_c z_c(t)`: timing is not unlearned by an event that
    stays away, and a probability can change without its time being learned anew. Rates of learning are relative to the
    squared length of the activity (normalised least mean squares), so that 1 corrects an error at once.

    `X` is activity after the cue, `[trials, time, units]`; `y` is `[trials, 2]`, the event that occurred, from 0, and
    the step at which it did.

    Args:
        events: Number of events.
        what_lr: Rate of the probabilities in (0, 1]; one over it is the number of trials that are remembered.
        when_lr: Rate of the times in (0, 1].
        width: Standard deviation of the bump, steps, > 0.
        window: Steps before and after an event in which its gate is open.
        gate: `"window"`; `"channel"`: open all through the trial for the event that occurred; `"open"`: open for all
            events always, so that those that did not occur are taught to be silent.

    Raises ConfigError for a setting out of range, ShapeError, LabelError, NonFiniteError for arrays. After `fit`:
    `what_` `[events, units]`, `when_` `[events, units]`.

    >>> bumps = np.eye(40)[None]  # a reservoir whose unit k is active at step k
    >>> X, y = np.repeat(bumps, 50, 0), np.array([[0, 10], [1, 30], [1, 30], [1, 30], [1, 30]] * 10)
    >>> readout = WhatWhenReadout(2, what_lr=0.05, when_lr=0.5, width=2, window=6).fit(X, y)
    >>> m = readout.predict(bumps)[0]  # [time, events]
    >>> m.argmax(0).tolist(), bool(0.1 < m[10, 0] < 0.3), bool(0.7 < m[30, 1] < 0.9)
    ([10, 30], True, True)
    """

    def __init__(
        self,
        events: int = 2,
        *,
        what_lr: float = 0.05,
        when_lr: float = 0.1,
        width: float = 4.0,
        window: int = 12,
        gate: Gate = "window",
    ) -> None:
        self.events = events
        self.what_lr = what_lr
        self.when_lr = when_lr
        self.width = width
        self.window = window
        self.gate = gate

    def fit(self, X: Any, y: Any) -> WhatWhenReadout:
        """Learn from trials in their order, from the beginning."""
        self.__dict__.pop("what_", None)
        return self.partial_fit(X, y)

    def partial_fit(self, X: Any, y: Any) -> WhatWhenReadout:
        """Learn from some trials more, in their order."""
        self._check()
        x = finite_array("WhatWhenReadout", "X", X, (3,))
        if not hasattr(self, "what_"):
            self.n_features_in_ = x.shape[2]
            self.what_ = np.zeros((self.events, x.shape[2]))
            self.when_ = np.zeros((self.events, x.shape[2]))
        self._fits(x)
        told = finite_array("WhatWhenReadout", "y", y, (2,))
        if told.shape != (len(x), 2):
            raise ShapeError(
                f"WhatWhenReadout: y is {list(told.shape)}, expected [{len(x)}, 2], event and step"
            )
        if not np.isin(told[:, 0], np.arange(self.events)).all():
            raise LabelError(f"WhatWhenReadout: y names an event outside 0 ... {self.events - 1}")
        self.what_, self.when_ = self.what_.copy(), self.when_.copy()  # what was returned stays as it was
        for trial, (event, step) in zip(x, told, strict=True):
            self._learn(trial, int(event), float(step))
        return self

    def predict(self, X: Any) -> Array:
        """Expected activity of every event channel, `[trials, time, events]`."""
        times = self.times(X)
        expected: Array = times * self.probabilities(X)[:, None]
        return expected

    def probabilities(self, X: Any) -> Array:
        """How likely every event is, `[trials, events]`."""
        found: Array = np.clip(self._fits(X).mean(1) @ self.what_.T, 0, 1)
        return found

    def times(self, X: Any) -> Array:
        """When every event would occur, a bump in `[trials, time, events]`."""
        found: Array = self._fits(X) @ self.when_.T
        return found

    def _learn(self, r: Array, event: int, step: float) -> None:
        steps = np.arange(len(r))
        bump = np.zeros((len(r), self.events))
        bump[:, event] = np.exp(-0.5 * ((steps - step) / self.width) ** 2)
        gate = np.zeros_like(bump)
        if self.gate == "open":
            gate[:] = 1
        else:
            gate[:, event] = 1 if self.gate == "channel" else abs(steps - step) <= self.window
        power = (r**2).sum(1)
        for t in np.flatnonzero(gate.any(1) & (power > 0)):
            error = gate[t] * (bump[t] - self.when_ @ r[t])
            self.when_ += np.outer(self.when_lr * error / power[t], r[t])
        mean = r.mean(0)
        power_of_mean = mean @ mean
        if power_of_mean > 0:
            occurred = np.arange(self.events) == event
            error = occurred - np.clip(self.what_ @ mean, 0, 1)
            self.what_ += np.outer(self.what_lr * error / power_of_mean, mean)

    def _fits(self, X: Any) -> Array:
        check_is_fitted(self)
        x: Array = finite_array("WhatWhenReadout", "X", X, (3,))
        if x.shape[2] != self.n_features_in_:
            raise ShapeError(
                f"WhatWhenReadout: X has {x.shape[2]} units, expected {self.n_features_in_} as in fit"
            )
        return x

    def _check(self) -> None:
        check_whole("WhatWhenReadout", "events", self.events, 1)
        check_whole("WhatWhenReadout", "window", self.window, 0)
        for name in ("what_lr", "when_lr"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(
                    f"WhatWhenReadout.{name}: got {getattr(self, name)}, expected a number in (0, 1]"
                )
        if not 0 < self.width < np.inf:
            raise ConfigError(f"WhatWhenReadout.width: got {self.width}, expected steps > 0")
        if self.gate not in get_args(Gate):
            raise ConfigError(
                f"WhatWhenReadout.gate: got {self.gate!r}{nearest(str(self.gate), get_args(Gate))}"
            )


@dataclass(frozen=True)
class MEETBlock:
    """Trials of one kind: event 0 with a probability, else event 1, each at its step after the cue."""

    probability: float  # of event 0, in [0, 1]
    steps: tuple[int, int]  # when event 0 and event 1 occur
    trials: int = 100


class MEETTrial(NamedTuple):
    """One trial."""

    cue: Tensor  # [time, 1], 1 while the cue lasts
    event: int  # the one that occurred


class MEETTask(Dataset[MEETTrial]):
    """Trials of the mutually exclusive events task: a cue, then one of two events, in blocks that switch unannounced.

    `outcomes` `[trials, 2]` holds the event and its step of every trial, as `WhatWhenReadout` is told them.

    Args:
        blocks: What holds, block after block.
        time: Steps of a trial.
        cue: Steps of the cue, at the start.
        seed: Which events occur.

    Raises ConfigError for a block that does not fit.

    >>> task = MEETTask([MEETBlock(1.0, (20, 40), trials=3), MEETBlock(0.0, (20, 40), trials=2)], time=60)
    >>> task.outcomes.tolist(), task[4].event
    ([[0, 20], [0, 20], [0, 20], [1, 40], [1, 40]], 1)
    """

    def __init__(self, blocks: Sequence[MEETBlock], *, time: int, cue: int = 4, seed: int = 0) -> None:
        check_whole("MEETTask", "cue", cue, 1, time)
        rng = np.random.default_rng(seed)
        outcomes = []
        for block in blocks:
            if (
                not 0 <= block.probability <= 1
                or block.trials < 1
                or not all(0 <= s < time for s in block.steps)
            ):
                raise ConfigError(
                    f"MEETTask: got {block}; expected a probability in [0, 1], steps below {time} and a trial or more"
                )
            event = (rng.random(block.trials) >= block.probability).astype(int)
            outcomes.append(np.column_stack([event, np.asarray(block.steps)[event]]))
        if not outcomes:
            raise ConfigError("MEETTask: no block")
        self.outcomes = torch.from_numpy(np.concatenate(outcomes))
        self.cue = (torch.arange(time) < cue).float()[:, None]

    def __len__(self) -> int:
        """Number of trials."""
        return len(self.outcomes)

    def __getitem__(self, index: int) -> MEETTrial:
        """A trial."""
        return MEETTrial(self.cue, int(self.outcomes[range(len(self))[index], 0]))
