"""Liquid state machines: spiking neurons with conductances, whose ripples a readout learns to read."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from neuropil.errors import ConfigError
from neuropil.kernels.leaky import leaky_scan
from neuropil.kernels.liquid import LiquidNeuron, liquid_scan
from neuropil.nn.recording import SATURATED
from neuropil.spiking.reservoir_estimator import (
    Array,
    Reading,
    Reservoir,
    ReservoirClassifier,
    ReservoirRegressor,
)


class _LiquidState(Reservoir):
    """The liquid, and the traces of its spikes."""

    def __init__(
        self,
        units: int = 400,
        *,
        inhibitory: float = 0.2,
        density: float = 0.1,
        excitation: float = 1.5,
        inhibition: float = 12.0,
        input_weight: float = 60.0,
        input_density: float = 0.2,
        longest_delay: float = 5.0,
        trace_time: float = 30.0,
        dt: float = 1.0,
        neuron: LiquidNeuron | None = None,
        washout: int = 0,
        reading: Reading = "mean",
        use_inputs: bool = False,
        alpha: float = 1.0,
        random_state: int | None = None,
    ) -> None:
        self.units = units
        self.inhibitory = inhibitory
        self.density = density
        self.excitation = excitation
        self.inhibition = inhibition
        self.input_weight = input_weight
        self.input_density = input_density
        self.longest_delay = longest_delay
        self.trace_time = trace_time
        self.dt = dt
        self.neuron = neuron
        self.washout = washout
        self.reading = reading
        self.use_inputs = use_inputs
        self.alpha = alpha
        self.random_state = random_state

    def spikes(self, X: Any) -> Array:
        """Spikes of the liquid, `[sequences, time, units]`, for sequences of one length."""
        groups, _ = self._sequences(X)
        return np.concatenate([self._spikes(x) for _, x in groups])

    def _make(self, inputs: int, rng: np.random.Generator) -> None:
        self._check()
        shape = (self.units, self.units)
        inhibits = np.arange(self.units) >= round(self.units * (1 - self.inhibitory))
        there = (rng.random(shape) < self.density) & ~np.eye(self.units, dtype=bool)
        strength = np.where(inhibits, -self.inhibition, self.excitation)  # of the sending unit, a column
        self.connections_ = there * strength * rng.gamma(4.0, 0.25, shape)  # mean one, no sign changes
        heard = rng.random((self.units, inputs)) < self.input_density
        self.input_weight_ = heard * self.input_weight * rng.gamma(4.0, 0.25, (self.units, inputs))
        self.delays_ = rng.integers(1, max(1, round(self.longest_delay / self.dt)) + 1, shape)

    def _run(self, x: Array) -> Array:
        spikes = self._spikes(x)
        decay = torch.tensor(np.exp(-self.dt / self.trace_time))
        steps = torch.from_numpy(np.ascontiguousarray(spikes.swapaxes(0, 1)))
        traces: Array = leaky_scan(steps, torch.zeros_like(steps[0]), decay)[0].numpy().swapaxes(0, 1)
        return traces

    def _spikes(self, x: Array) -> Array:
        run = liquid_scan(
            torch.from_numpy(np.ascontiguousarray(x.swapaxes(0, 1))),
            torch.from_numpy(self.connections_),
            torch.from_numpy(self.input_weight_),
            self.neuron or LiquidNeuron(),
            delays=torch.from_numpy(self.delays_),
            dt=self.dt,
        )
        spikes: Array = run.spikes.numpy().swapaxes(0, 1)
        self._tell(float(spikes.mean()))
        return spikes

    def _tell(self, rate: float) -> None:
        """One line where the liquid hardly says anything."""
        waits = torch.as_tensor((self.neuron or LiquidNeuron()).refractory).double().mean().item()
        fastest = 1 / (1 + waits / self.dt)
        if rate == 0:
            text = "is silent: not one spike; raise input_weight or input_density"
        elif rate >= SATURATED * fastest:
            text = f"is saturated: {rate:.0%} of steps are spikes; lower input_weight or excitation"
        else:
            return
        warnings.warn(f"{type(self).__name__}: the liquid {text}", stacklevel=4)

    def _check(self) -> None:
        name = type(self).__name__
        for field in ("inhibitory", "density", "input_density"):
            value = getattr(self, field)
            if not 0 <= value <= 1:
                raise ConfigError(f"{name}.{field}: got {value}, expected a share in [0, 1]")
        for field in ("excitation", "inhibition", "input_weight", "longest_delay"):
            value = getattr(self, field)
            if not 0 <= value < np.inf:
                raise ConfigError(f"{name}.{field}: got {value}, expected a finite number >= 0")
        for field in ("trace_time", "dt"):
            value = getattr(self, field)
            if not 0 < value < np.inf:
                raise ConfigError(f"{name}.{field}: got {value}, expected milliseconds > 0")


class LiquidState(ReservoirRegressor, _LiquidState):
    """Excitatory and inhibitory spiking neurons whose filtered spikes a ridge regression turns into numbers.

    Integrate-and-fire neurons with conductances (Vogels and Abbott's by default) are connected at random, with delays;
    an input raises a conductance of those that hear it. The readout sees each neuron's spikes through an exponential
    filter. Maass, Natschlaeger and Markram (2002), "Real-time computing without stable states". `X` is
    `[sequences, time, inputs]`, spikes or rates of `dt` milliseconds a step; each sequence begins at rest.

    Args:
        units: Number of neurons.
        inhibitory: Share of them that inhibits, in [0, 1].
        density: Share of connections there are, in [0, 1].
        excitation: Mean weight of an excitatory connection, nanosiemens.
        inhibition: Mean weight of an inhibitory one, nanosiemens.
        input_weight: Mean weight of an input of one, nanosiemens.
        input_density: Share of neurons that hear an input, in [0, 1].
        longest_delay: Connections take a step up to this, milliseconds.
        trace_time: Time constant of the filter, milliseconds.
        dt: Length of a step, milliseconds.
        neuron: Numbers of the neurons, or None for the default.
        washout: First steps that are not learned from.
        reading: `"steps"`, `"mean"` or `"last"`, as for `EchoState`.
        use_inputs: Whether the readout sees the input beside the filtered spikes.
        alpha: Penalty of the ridge regression.
        random_state: Seed of the connections.

    Raises ConfigError for a setting out of range, ShapeError for arrays that do not fit, NonFiniteError for NaN or
    infinity; warns in one line when no neuron fires, or all the time.

    >>> rng = np.random.default_rng(0)
    >>> rates = rng.uniform(0.02, 0.2, 60)
    >>> X = rng.random((60, 150, 4)) < rates[:, None, None]  # how strong was the input?
    >>> model = LiquidState(100, random_state=0).fit(X[:40], rates[:40])
    >>> bool(model.score(X[40:], rates[40:]) > 0.8)
    True
    """


class LiquidStateClassifier(ReservoirClassifier, _LiquidState):
    """`LiquidState` that names the class of each sequence; settings as there.

    >>> rng = np.random.default_rng(0)
    >>> templates = rng.random((2, 100, 5)) < 0.05
    >>> labels = rng.integers(0, 2, 40)
    >>> X = templates[labels] ^ (rng.random((40, 100, 5)) < 0.01)  # two patterns of spikes, jammed
    >>> model = LiquidStateClassifier(80, reading="last", random_state=0).fit(X[:30], labels[:30])
    >>> model.score(X[30:], labels[30:])
    1.0
    """
