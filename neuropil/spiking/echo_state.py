"""Echo state networks: random recurrent units that are not trained, and a readout that is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.linalg import ArpackError, eigs
from sklearn.utils.validation import check_is_fitted

from neuropil.errors import ConfigError, ShapeError
from neuropil.kernels.reservoir import leaky_reservoir_scan
from neuropil.spiking.arrays import check_whole, finite_array
from neuropil.spiking.reservoir_estimator import (
    Array,
    Reading,
    Reservoir,
    ReservoirClassifier,
    ReservoirRegressor,
)

_DENSE = 200  # units up to which all eigenvalues are as quick as one


class _EchoState(Reservoir):
    """The units of an echo state network."""

    def __init__(
        self,
        units: int = 300,
        *,
        spectral_radius: float = 0.9,
        leak: float = 1.0,
        input_scale: float = 1.0,
        bias_scale: float = 0.2,
        density: float = 0.1,
        washout: int = 0,
        reading: Reading = "steps",
        use_inputs: bool = True,
        alpha: float = 1e-6,
        random_state: int | None = None,
    ) -> None:
        self.units = units
        self.spectral_radius = spectral_radius
        self.leak = leak
        self.input_scale = input_scale
        self.bias_scale = bias_scale
        self.density = density
        self.washout = washout
        self.reading = reading
        self.use_inputs = use_inputs
        self.alpha = alpha
        self.random_state = random_state

    def _make(self, inputs: int, rng: np.random.Generator) -> None:
        name = type(self).__name__
        for field, low, high in (("leak", 0, 1), ("density", 0, 1)):
            value = getattr(self, field)
            if not low < value <= high:
                raise ConfigError(f"{name}.{field}: got {value}, expected a number in (0, 1]")
        for field in ("spectral_radius", "input_scale", "bias_scale"):
            value = getattr(self, field)
            if not 0 <= value < np.inf:
                raise ConfigError(f"{name}.{field}: got {value}, expected a finite number >= 0")
        weights = rng.normal(size=(self.units, self.units)) * (
            rng.random((self.units, self.units)) < self.density
        )
        radius = _radius(weights)
        self.connections_ = weights * (self.spectral_radius / radius) if radius > 0 else weights
        self.input_weight_ = self.input_scale * rng.uniform(-1, 1, (self.units, inputs))
        self.bias_ = self.bias_scale * rng.uniform(-1, 1, self.units)

    def _run(self, x: Array) -> Array:
        return self._continued(x, np.zeros((len(x), self.units)))

    def _continued(self, x: Array, state: Array) -> Array:
        steps = torch.from_numpy(np.ascontiguousarray(x.swapaxes(0, 1)))
        connections, into, bias = map(torch.from_numpy, (self.connections_, self.input_weight_, self.bias_))
        with torch.no_grad():
            states = leaky_reservoir_scan(steps, torch.from_numpy(state), connections, into, bias, self.leak)
        found: Array = states.numpy().swapaxes(0, 1)
        return found


class EchoState(ReservoirRegressor, _EchoState):
    """Random leaky tanh units whose states a ridge regression turns into numbers; a scikit-learn regressor.

    `x[t] = (1 - leak) x[t-1] + leak tanh(W x[t-1] + W_in u[t] + b)`, with `W` sparse and scaled to its spectral
    radius; only the readout learns, in closed form. Jaeger (2001), "The echo state approach to analysing and training
    recurrent neural networks"; Lukosevicius (2012) for how to set one up. `X` is `[sequences, time, inputs]` or one
    sequence `[time, inputs]`; each begins at rest.

    Args:
        units: Number of units.
        spectral_radius: Of the connections, >= 0: how long the past rings on; usually somewhat below one.
        leak: In (0, 1]; small for slow signals.
        input_scale: Input weights are uniform in plus and minus this.
        bias_scale: The same for the bias; without one, units answer a turned-over input by the turned-over state.
        density: Share of connections there are, in (0, 1].
        washout: First steps of each sequence that are not learned from nor scored.
        reading: `"steps"`: an answer at each step; `"mean"` or `"last"`: one for each sequence, from the mean of its
            states or the last.
        use_inputs: Whether the readout sees the input beside the states.
        alpha: Penalty of the ridge regression.
        random_state: Seed of the connections.

    Raises ConfigError for a setting out of range, ShapeError for arrays that do not fit, NonFiniteError for NaN or
    infinity. After `fit`: `connections_`, `input_weight_`, `bias_`, `readout_`.

    >>> u = np.random.default_rng(0).uniform(-0.5, 0.5, (600, 1))
    >>> y = 0.3 * np.roll(u[:, 0], 3) + 0.2 * np.roll(u[:, 0], 1) ** 2  # what was three steps ago, and one squared
    >>> model = EchoState(100, washout=20, random_state=0).fit(u[:400], y[:400])
    >>> bool(model.score(u[400:], y[400:]) > 0.98)
    True
    """

    def forecast(self, X: Any, steps: int) -> Array:
        """Run freely for `steps` after the sequence `X`: what it predicts becomes its next input.

        For a network that was fitted to give the next input, with `reading="steps"`: `[steps, inputs]`.
        """
        check_is_fitted(self)
        check_whole("EchoState.forecast", "steps", steps, 1)
        x = self._checked(finite_array("EchoState.forecast", "X", X, (2,))[None])
        outputs = np.size(self.readout_.intercept_)
        if self.reading != "steps" or outputs != x.shape[2]:
            raise ShapeError(
                f"EchoState.forecast: the readout gives {outputs} numbers with reading={self.reading!r}, "
                f"expected the next of {x.shape[2]} inputs at every step"
            )
        state, given, said = self._run(x)[:, -1].copy(), x[:, -1], []
        for _ in range(steps):
            features = np.concatenate([state, given], axis=1) if self.use_inputs else state
            given = self.readout_.predict(features).reshape(1, -1)
            said.append(given[0])
            state = self._continued(given[:, None], state)[:, -1].copy()
        return np.stack(said)


class EchoStateClassifier(ReservoirClassifier, _EchoState):
    """`EchoState` that names the class of each sequence, by regression on plus and minus one for each class.

    Settings as for `EchoState`, with `reading="mean"` by default; labels are of any kind, `[sequences]`, or
    `[sequences, time]` with `reading="steps"`.

    >>> t = np.arange(80) / 10
    >>> waves = [np.sin(f * t + p)[:, None] for f in (1.0, 1.6) for p in range(12)]
    >>> labels = ["slow"] * 12 + ["fast"] * 12
    >>> model = EchoStateClassifier(50, washout=10, random_state=0).fit(waves[::2], labels[::2])
    >>> model.score(waves[1::2], labels[1::2])
    1.0
    """

    def __init__(
        self,
        units: int = 300,
        *,
        spectral_radius: float = 0.9,
        leak: float = 1.0,
        input_scale: float = 1.0,
        bias_scale: float = 0.2,
        density: float = 0.1,
        washout: int = 0,
        reading: Reading = "mean",
        use_inputs: bool = True,
        alpha: float = 1e-6,
        random_state: int | None = None,
    ) -> None:
        super().__init__(
            units,
            spectral_radius=spectral_radius,
            leak=leak,
            input_scale=input_scale,
            bias_scale=bias_scale,
            density=density,
            washout=washout,
            reading=reading,
            use_inputs=use_inputs,
            alpha=alpha,
            random_state=random_state,
        )


def _radius(weights: Array) -> float:
    """Largest absolute eigenvalue."""
    if len(weights) > _DENSE:
        try:
            start = np.ones(len(weights))
            return float(abs(eigs(csr_array(weights), k=1, v0=start, return_eigenvectors=False)[0]))
        except ArpackError:
            pass  # eigenvalues of nearly the same size: all of them then
    return float(abs(np.linalg.eigvals(weights)).max())
