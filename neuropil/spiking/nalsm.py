"""Liquids that plasticity under an astrocyte brings near the edge of chaos, and how far spikes branch in them.

Increasing Liquid State Machine Performance with Edge-of-Chaos Dynamics Organized by Astrocyte-modulated Plasticity
(Ivanov and Michmizos, 2021).
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from neuropil.errors import ConfigError, DataError, ShapeError, nearest
from neuropil.kernels.astrocyte_liquid import AstrocyteNumbers, LiquidWiring, astrocyte_liquid_scan
from neuropil.spiking.arrays import check_whole, finite_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Array = np.ndarray[Any, Any]
Plasticity = Literal["astrocyte", "stdp"]
_AT_ONCE = 100  # images whose spikes are held in memory
_CHANCE = ((0.2, 0.1), (0.3, 0.05))  # of a connection at no distance: [source inhibits][target inhibits]
_LARGEST = 3.0  # weight


def branching_factor(spikes: ArrayLike, connections: ArrayLike, *, window: int = 1) -> float:
    """Mean over spikes of what fires behind a neuron one step later, over what fired before it one step earlier.

    For every spike: spikes of the neuron's targets in the next step, over those of its sources in the previous one
    (at least 1). Where activity is sparse, a branching process gives its ratio: about 1 at the edge of chaos, less
    where activity dies out. Dense activity tells less: as much has fired before a spike as fires after it, whatever
    the network, so that even a network that fires without pause comes near 1. `branching_ratio` asks population
    activity instead, and no wiring.

    Args:
        spikes: 0 or 1, `[time, units]` or `[trials, time, units]`.
        connections: `[units, units]`, row `i` what unit `i` receives; other than zero where there is a connection.
        window: Steps before and after a spike that are counted; spikes with fewer steps on a side are left out.

    Raises DataError when no spike can be judged or numbers are no spikes, ShapeError when the shapes do not fit,
    NonFiniteError for NaN or infinity, ConfigError for a window below 1.

    >>> chain = np.eye(3, k=-1)  # 0 excites 1 excites 2
    >>> branching_factor(np.eye(3), chain)  # one fires after the other
    1.0
    """
    check_whole("branching_factor", "window", window, 1)
    s = finite_array("branching_factor", "spikes", spikes, (2, 3))
    there = finite_array("branching_factor", "connections", connections, (2,)) != 0
    s = s[None] if s.ndim == 2 else s
    if not np.isin(s, (0, 1)).all():
        raise DataError(f"branching_factor: spikes from {s.min():.4g} to {s.max():.4g}, expected 0 or 1")
    if there.shape != (s.shape[2],) * 2:
        raise ShapeError(
            f"branching_factor: connections {list(there.shape)} for {s.shape[2]} units, expected a row and column each"
        )
    sparse, total, number = csr_array(there.astype(np.float64)), 0.0, 0.0
    for run in s:
        so_far = np.concatenate([np.zeros((1, s.shape[2])), run.cumsum(0)])
        t = np.arange(window, len(run) - window)  # spikes that have a whole window on either side
        before = (sparse @ (so_far[t] - so_far[t - window]).T).T
        after = (sparse.T @ (so_far[t + 1 + window] - so_far[t + 1]).T).T
        total += float((run[t] * after / np.maximum(before, 1)).sum())
        number += float(run[t].sum())
    if number == 0:
        raise DataError(
            "branching_factor: no spike between the first step and the last, there is nothing to average"
        )
    return total / number


class AstrocyteLiquid(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Spike counts of a liquid that `fit` initialises with spike-timing plasticity, its depression set by an astrocyte.

    Pixels in [0, 1] are chances per millisecond that an input is hit and fires, refractory ones a little later. Neurons
    on a grid are connected with a chance that falls with distance, four in five excite. `fit` shows each sample for a
    snippet while synapses learn; one astrocyte raises depression when the liquid is more active than the input and
    lowers it when it is less. Then weights are frozen, and `transform` gives each neuron's share of all spikes of a
    sample, for any linear classifier. `partial_fit` goes on where the last call ended.

    Args:
        grid: Neurons along each of three directions.
        plasticity: `"astrocyte"`; `"stdp"` holds depression constant; None leaves all weights at plus or minus one.
        astrocyte_weight: What a surplus spike of the liquid adds, >= 0; the paper has 0.015 for 1000 neurons.
        astrocyte_time: Time constant of the astrocyte, milliseconds, >= 1.
        potentiation: Rate of potentiation, >= 0.
        depression: Rate of depression, >= 0, with an astrocyte the one it rests at.
        snippet: Milliseconds that `fit` shows a sample.
        steps: Milliseconds that `transform` shows a sample.
        inhibitory: Share of neurons that inhibits, in [0, 1].
        input_density: Share of neurons that an input reaches, in [0, 1].
        reach: Distance over which connections get rare, in steps of the grid, > 0.
        random_state: Seed of wiring and input; `transform` shows every sample by the same draw.

    Attributes:
        connections_: Weights `[units, units]` of the liquid, row `i` what unit `i` receives.
        input_weight_: Weights `[units, inputs]`.
        depression_: Rate of depression `[samples, snippet]` in the samples that the last call learned from.

    Raises ConfigError for a setting out of range, DataError for values outside [0, 1], ShapeError for another number
    of inputs than in `fit`, NonFiniteError for NaN or infinity. Spikes at the same millisecond do not pair.

    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(40) % 2
    >>> X = np.clip(np.where((np.arange(64) < 32) == y[:, None], 0.6, 0.1) + 0.1 * rng.random((40, 64)), 0, 1)
    >>> liquid = AstrocyteLiquid((4, 4, 4), steps=60, input_density=0.5, random_state=0).fit(X)
    >>> liquid.transform(X).shape
    (40, 64)
    """

    def __init__(
        self,
        grid: tuple[int, int, int] = (10, 10, 10),
        *,
        plasticity: Plasticity | None = "astrocyte",
        astrocyte_weight: float = 0.015,
        astrocyte_time: float = 100.0,
        potentiation: float = 0.15,
        depression: float = 0.15,
        snippet: int = 20,
        steps: int = 250,
        inhibitory: float = 0.2,
        input_density: float = 0.15,
        reach: float = 3.0,
        random_state: int | None = None,
    ) -> None:
        self.grid = grid
        self.plasticity = plasticity
        self.astrocyte_weight = astrocyte_weight
        self.astrocyte_time = astrocyte_time
        self.potentiation = potentiation
        self.depression = depression
        self.snippet = snippet
        self.steps = steps
        self.inhibitory = inhibitory
        self.input_density = input_density
        self.reach = reach
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> AstrocyteLiquid:
        """Draw the wiring and learn from samples `X` `[samples, inputs]` one after the other; `y` is ignored."""
        self._check()
        x = self._rates(X, None)
        self._rng = np.random.default_rng(self.random_state)
        self.n_features_in_ = x.shape[1]
        self._wiring, self.weight_ = self._draw(self._rng)
        self._trace = np.zeros(len(self._wiring.inhibits))
        self.seed_ = int(self._rng.integers(2**32))  # of the input that `transform` draws
        return self._learn(x)

    def partial_fit(self, X: Any, y: Any = None) -> AstrocyteLiquid:
        """Learn from more samples `X` `[samples, inputs]`; the first call draws the wiring."""
        if not hasattr(self, "weight_"):
            return self.fit(X)
        return self._learn(self._rates(X, self.n_features_in_))

    def _learn(self, x: Array) -> AstrocyteLiquid:
        """Snippets of all samples, one after the other."""
        levels = []
        for start in range(0, len(x), _AT_ONCE):
            rates = x[start : start + _AT_ONCE]
            if self.plasticity is None:
                levels.append(np.zeros((len(rates), self.snippet)))
                continue
            hits = _hits(rates, self.snippet, self._rng)
            run = astrocyte_liquid_scan(
                hits, self._wiring, self.weight_, self._trace, self._units, self._numbers()
            )
            self.weight_, self._trace = run.weight, run.trace
            levels.append(run.astrocyte)
        self.depression_ = np.concatenate(levels)
        return self

    def transform(self, X: Any) -> Array:
        """Shares of spikes `[samples, units]`, each row adding up to 1, or 0 throughout where nothing fired."""
        counts = self._run(X, lambda spikes: spikes.sum(1, dtype=np.float64))
        return np.asarray(counts / np.maximum(counts.sum(1, keepdims=True), 1))

    def spikes(self, X: Any) -> Array:
        """Spikes of the frozen liquid, `[samples, steps, units]`, 0 or 1."""
        return self._run(X, lambda spikes: spikes)

    @property
    def connections_(self) -> Array:
        """Weights `[units, units]` of the liquid, row `i` what unit `i` receives."""
        return self._dense()[:, self.n_features_in_ :]

    @property
    def input_weight_(self) -> Array:
        """Weights `[units, inputs]` of the input."""
        return self._dense()[:, : self.n_features_in_]

    def _dense(self) -> Array:
        check_is_fitted(self, "weight_")
        sources = len(self._wiring.inhibits)
        parts = (self.weight_, self._wiring.targets, self._wiring.offsets)
        return np.asarray(csr_array(parts, shape=(sources, self._units)).toarray().T)

    def _run(self, X: Any, read: Any) -> Array:
        """What `read` makes of the spikes of the frozen liquid."""
        check_is_fitted(self, "weight_")
        x, rng = self._rates(X, self.n_features_in_), np.random.default_rng(self.seed_)
        drawn = rng.random(
            (self.steps, x.shape[1]), dtype=np.float32
        )  # one draw: answers are of their own samples
        trace, found = np.zeros(len(self._wiring.inhibits)), []
        for start in range(0, len(x), _AT_ONCE):
            shown = (drawn < x[start : start + _AT_ONCE, None]).astype(np.uint8)
            run = astrocyte_liquid_scan(shown, self._wiring, self.weight_, trace, self._units, learns=False)
            found.append(read(run.spikes))
        return np.concatenate(found)

    @property
    def _units(self) -> int:
        return int(prod(self.grid))

    def _numbers(self) -> AstrocyteNumbers:
        weight = self.astrocyte_weight if self.plasticity == "astrocyte" else 0.0
        return AstrocyteNumbers(
            potentiation=self.potentiation, depression=self.depression, astrocyte_weight=weight,
            astrocyte_time=self.astrocyte_time,
        )  # fmt: skip

    def _draw(self, rng: np.random.Generator) -> tuple[LiquidWiring, Array]:
        """Synapses by distance, and weights of plus or minus one."""
        units, inputs = self._units, self.n_features_in_
        places = rng.permutation(np.stack(np.unravel_index(np.arange(units), self.grid), axis=1))
        inhibits = np.arange(units) >= round(units * (1 - self.inhibitory))
        kinds = inhibits.astype(int)
        chance = np.array(_CHANCE)[kinds[:, None], kinds] * np.exp(
            -((cdist(places, places) / self.reach) ** 2)
        )
        liquid = (rng.random((units, units)) < chance) & ~np.eye(units, dtype=bool)  # [source, target]
        heard = rng.random((inputs, units)) < self.input_density
        signs = np.where(rng.random((inputs, units)) < 0.5, -1.0, 1.0)
        there = np.concatenate([heard, liquid])
        weights = np.concatenate([signs, np.where(inhibits, -1.0, 1.0)[:, None] * np.ones((units, units))])
        offsets = np.concatenate([[0], np.cumsum(there.sum(1))])
        stops = np.concatenate([np.zeros(inputs, bool), inhibits])
        low = np.concatenate([np.full(inputs, -_LARGEST), np.where(inhibits, -_LARGEST, 0.0)])
        high = np.concatenate([np.full(inputs, _LARGEST), np.where(inhibits, 0.0, _LARGEST)])
        return LiquidWiring(offsets, np.nonzero(there)[1], stops, low, high), weights[there]

    def _rates(self, X: Any, inputs: int | None) -> Array:
        name = type(self).__name__
        x = finite_array(name, "X", X, (2,))
        if inputs is not None and x.shape[1] != inputs:
            raise ShapeError(f"{name}: X has {x.shape[1]} inputs, expected {inputs} as in fit")
        if x.min() < 0 or x.max() > 1:
            raise DataError(
                f"{name}: X goes from {x.min():.4g} to {x.max():.4g}, expected chances of a hit in [0, 1]"
            )
        return x

    def _check(self) -> None:
        """Refuse settings out of range."""
        name = type(self).__name__
        if not isinstance(self.grid, tuple | list) or len(self.grid) != 3:
            raise ConfigError(f"{name}.grid: got {self.grid!r}, expected three numbers of neurons")
        for size in self.grid:
            check_whole(name, "grid", size, 1)
        for field in ("snippet", "steps"):
            check_whole(name, field, getattr(self, field), 1)
        if self.plasticity is not None and self.plasticity not in get_args(Plasticity):
            raise ConfigError(
                f"{name}.plasticity: got {self.plasticity!r}, expected None or one of {list(get_args(Plasticity))}"
                f"{nearest(str(self.plasticity), get_args(Plasticity))}"
            )
        for field, least, most in (
            ("astrocyte_weight", 0, np.inf),
            ("astrocyte_time", 1, np.inf),
            ("potentiation", 0, np.inf),
            ("depression", 0, np.inf),
            ("inhibitory", 0, 1),
            ("input_density", 0, 1),
            ("reach", 1e-6, np.inf),
        ):
            value = getattr(self, field)
            if not (np.isfinite(value) and least <= value <= most):
                raise ConfigError(f"{name}.{field}: got {value}, expected a number from {least} to {most}")


def _hits(x: Array, steps: int, rng: np.random.Generator) -> Array:
    """When inputs are hit, `[samples, steps, inputs]`, each of chance `x`."""
    drawn = rng.random((len(x), steps, x.shape[1]), dtype=np.float32)
    return np.asarray((drawn < x[:, None]).astype(np.uint8))
