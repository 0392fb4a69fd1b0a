"""FORCE: teaching a chaotic network to generate a pattern by keeping its error small from the first step on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neuropil.errors import ConfigError, DataError, ShapeError
from neuropil.spiking.ridge import rls_step

if TYPE_CHECKING:
    from jaxtyping import Float

Array = np.ndarray[Any, Any]


class ForceState(NamedTuple):
    """Where a network is, so that a run can go on."""

    potential: Array  # [units]
    output: Array  # [outputs]


class ForceRun(NamedTuple):
    """What a network did."""

    output: Array  # [time, outputs]
    error: Array  # [time, outputs], target minus output before each change; empty without a target
    state: ForceState


class FORCE:
    """A random recurrent network of tanh units whose output is fed back and whose readout is learned while it runs.

        potential += step * (-potential + W tanh(potential) + W_feedback output + W_in drive)
        output = readout^T tanh(potential)

    `teach` runs the network and moves the readout by recursive least squares, `run` lets it go on alone. Sussillo and
    Abbott (2009), "Generating coherent patterns of activity from chaotic neural networks".

    Args:
        units, outputs, inputs: Sizes; `inputs=0` for a network without drive.
        gain: Strength of the random connections; chaotic above 1.
        sparsity: Share of connections that exist, in (0, 1].
        step: Step over time constant, in (0, 1].
        alpha: Penalty of the least squares, > 0: small learns fast.
        every: Steps between two changes of the readout.
        random_state: Seed of the weights and of the start.

    Raises:
        ConfigError: A setting is out of range.
        ShapeError, DataError: Target or drive do not fit, or are not finite.

    >>> wave = np.sin(np.arange(3000) * 0.05)[:, None]
    >>> network = FORCE(150, 1, random_state=0)
    >>> taught = network.teach(wave)
    >>> bool(np.abs(taught.error[-500:]).max() < 0.2)
    True
    """

    def __init__(
        self,
        units: int,
        outputs: int,
        inputs: int = 0,
        *,
        gain: float = 1.5,
        sparsity: float = 0.1,
        step: float = 0.1,
        alpha: float = 1.0,
        every: int = 2,
        random_state: int = 0,
    ) -> None:
        if units < 1 or outputs < 1 or inputs < 0 or every < 1:
            raise ConfigError(
                f"FORCE: units={units}, outputs={outputs}, inputs={inputs}, every={every}; expected at least 1, 1, 0, 1"
            )
        if not (gain >= 0 and 0 < sparsity <= 1 and 0 < step <= 1 and 0 < alpha < math.inf):
            raise ConfigError(
                f"FORCE: gain={gain}, sparsity={sparsity}, step={step}, alpha={alpha}; expected >= 0, in (0, 1], "
                "in (0, 1], and > 0"
            )
        rng = np.random.default_rng(random_state)
        exists = rng.random((units, units)) < sparsity
        self.connections = exists * rng.normal(0, gain / math.sqrt(sparsity * units), (units, units))
        self.feedback = rng.uniform(-1, 1, (units, outputs))
        self.input_weight = rng.normal(0, 1, (units, inputs))
        self.readout = np.zeros((units, outputs))
        self.inverse = np.eye(units) / alpha
        self.step, self.every = step, every
        self.start = ForceState(rng.normal(0, 0.5, units), np.zeros(outputs))

    def teach(
        self, target: Float[Array, "time outputs"], drive: Any = None, state: ForceState | None = None
    ) -> ForceRun:
        """Run beside a target and learn to give it; the readout and what it has seen stay for further calls."""
        target = np.asarray(target, np.float64)
        if target.ndim != 2 or target.shape[1] != self.readout.shape[1] or not np.isfinite(target).all():
            kind = DataError if target.ndim == 2 and target.shape[1] == self.readout.shape[1] else ShapeError
            raise kind(
                f"FORCE: target is {list(target.shape)}, expected finite [time, {self.readout.shape[1]}]"
            )
        return self._advance(len(target), drive, state, target)

    def run(self, steps: int, drive: Any = None, state: ForceState | None = None) -> ForceRun:
        """Let the network go on by itself for some steps, without learning, from `state` (default: its start)."""
        if steps < 0:
            raise ConfigError(f"FORCE.run: got {steps} steps, expected at least 0")
        return self._advance(steps, drive, state, None)

    def _advance(self, steps: int, drive: Any, state: ForceState | None, target: Array | None) -> ForceRun:
        inputs = self.input_weight.shape[1]
        drive = np.zeros((steps, 0)) if drive is None and not inputs else np.asarray(drive, np.float64)
        if drive.shape != (steps, inputs):
            raise ShapeError(f"FORCE: drive is {list(drive.shape)}, expected [{steps}, {inputs}]")
        potential, output = self.start if state is None else state
        rate = np.tanh(potential)
        given = drive @ self.input_weight.T
        outputs, errors = np.empty((steps, len(output))), []
        for t in range(steps):
            pull = self.connections @ rate + self.feedback @ output + given[t]
            potential = potential + self.step * (pull - potential)
            rate = np.tanh(potential)
            if target is not None:
                errors.append(target[t] - rate @ self.readout)
                if t % self.every == 0:
                    rls_step(self.inverse, self.readout, rate, target[t])
            output = rate @ self.readout
            outputs[t] = output
        error = np.array(errors).reshape(-1, len(output))
        return ForceRun(outputs, error, ForceState(potential, output))
