"""Small spiking controllers that evolution teaches to mimic a controller's command.

Burgers, Stroobants, de Croon: Evolving Spiking Neural Networks to Mimic PID Control for Autonomous Blimps. 2023.
arXiv:2309.12937
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from neuropil.errors import ConfigError, MissingExtraError, ShapeError, nearest
from neuropil.kernels.spiking_controller import NEURON_ROWS, PAIR_ROWS, controller_scan
from neuropil.spiking.arrays import check_whole, finite_array

Array = np.ndarray[Any, Any]
Variant = Literal["lif", "recurrent", "iwta", "recurrent_iwta"]

# Ranges that the paper gives to what evolves.
RANGES = {
    "encoding_weight": (-2.0, 2.0), "encoding_bias": (-1.0, 1.0), "encoding_decay": (0.0, 1.0),
    "encoding_threshold": (0.0, 10.0), "weight_same": (-2.0, 2.0), "weight_other": (-2.0, 2.0),
    "synapse_decay": (0.0, 1.0), "membrane_decay": (0.0, 1.0), "threshold": (0.0, 10.0), "readout": (-1.0, 1.0),
    "recurrent_same": (-1.0, 1.0), "recurrent_other": (-1.0, 1.0), "shift_same": (-1.0, 1.0),
    "shift_other": (-1.0, 1.0), "threshold_decay": (0.0, 1.0),
}  # fmt: skip
FIRST_THRESHOLD = 1.0  # mid-range thresholds would silence the network, and silence is a local optimum
_NEEDS = {
    "recurrent": ("recurrent_same", "recurrent_other"),
    "iwta": ("shift_same", "shift_other", "threshold_decay"),
}


class Decoded(NamedTuple):
    """Parameters of a population of controllers, as `controller_scan` takes them."""

    pairs: Array  # [population, 4, neurons / 2]
    neurons: Array  # [population, 11, neurons]
    readout_decay: Array  # [population]


def gene_rows(variant: Variant) -> tuple[str, ...]:
    """Parameters that evolve in a variant, each for every pair or every neuron.

    >>> gene_rows("iwta")[-3:]
    ('shift_same', 'shift_other', 'threshold_decay')
    """
    left_out = {name for part, names in _NEEDS.items() if part not in variant for name in names}
    return tuple(name for name in (*PAIR_ROWS, *NEURON_ROWS) if name not in left_out)


def decode(genes: Array, neurons: int, variant: Variant, longest_readout: float = 1.0) -> Decoded:
    """Parameters of genes `[population, genes]` in [0, 1]: each gene is a place in its parameter's range.

    >>> decode(np.full((3, 10 * 8 + 1), 0.5), 10, "lif").neurons[0, NEURON_ROWS.index("threshold"), 0].item()
    5.0
    """
    population, at = len(genes), 0
    pairs = np.zeros((population, len(PAIR_ROWS), neurons // 2))
    hidden = np.zeros((population, len(NEURON_ROWS), neurons))
    for name in gene_rows(variant):
        low, high = RANGES[name]
        table, row = (
            (pairs, PAIR_ROWS.index(name)) if name in PAIR_ROWS else (hidden, NEURON_ROWS.index(name))
        )
        table[:, row] = low + (high - low) * genes[:, at : at + table.shape[2]]
        at += table.shape[2]
    return Decoded(pairs, hidden, longest_readout * genes[:, at])


def mimicry_loss(commands: Array, wanted: Array) -> Array:
    """Mean absolute error plus one minus Pearson's correlation, over the last axis, then the mean over sequences.

    A command that never changes has a correlation of 0.

    >>> float(mimicry_loss(np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 2.0, 3.0]])).round(6))
    0.0
    """
    error = np.abs(commands - wanted).mean(-1)
    x, y = commands - commands.mean(-1, keepdims=True), wanted - wanted.mean(-1, keepdims=True)
    size = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    correlation = np.divide((x * y).sum(-1), size, out=np.zeros_like(size), where=size > 1e-12)
    return np.asarray((error + 1 - correlation).mean(-1))


class SpikingControllerRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A spiking network of two layers that evolution teaches to turn errors into commands.

    `X` is `[sequences, time]`, the error at every step; `y` are the commands wanted, of the same shape. An encoding
    layer of neurons in pairs of opposite sign drives a hidden layer of current-based neurons with a soft reset; a leaky
    readout of their spikes is the command. All parameters evolve by CMA-ES (separable, Ros and Hansen 2008) on mean
    absolute error plus one minus the correlation, each generation judged on one sequence. The controller kept is the
    best of the last generations' champions on all of them.

    Each hidden neuron hears its own encoding pair, by two weights: how the paper shares weights could not be read in
    full, and this reading has its number of genes.

    Args:
        neurons: Of each layer, even.
        variant: Of the hidden layer. `"lif"`; `"recurrent"` adds weights within each pair; `"iwta"` lets incoming
            spikes shift thresholds, which relax again (input-weighted threshold adaptation); `"recurrent_iwta"` both.
        generations: Of evolution.
        population: Controllers of a generation, all run side by side.
        sigma: First width of the search, as a share of every range.
        longest_readout: Bound on the readout's decay; a small one leaves integration to the hidden layer.
        random_state: Seed.

    Raises:
        ConfigError: A setting is out of range.
        ShapeError, DataError, NonFiniteError: `X` and `y` are no sequences of one shape and finite numbers.
        MissingExtraError: The package `cmaes` is not installed (`pip install 'neuropil[evolution]'`).

    Costs `generations * population` runs over a sequence; `loss_curve_` holds every generation's best.

    >>> errors = np.sin(np.linspace(0, 20, 100))[None] * np.array([[1.0], [0.5]])
    >>> model = SpikingControllerRegressor(4, generations=30, population=12).fit(errors, 2 * errors)
    >>> model.predict(errors).shape
    (2, 100)
    """

    def __init__(
        self,
        neurons: int = 20,
        variant: Variant = "iwta",
        *,
        generations: int = 400,
        population: int = 32,
        sigma: float = 0.1,
        longest_readout: float = 1.0,
        random_state: int = 0,
    ) -> None:
        self.neurons, self.variant, self.generations = neurons, variant, generations
        self.population, self.sigma, self.longest_readout = population, sigma, longest_readout
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> SpikingControllerRegressor:
        """Evolve a controller on errors `X` and commands `y`, both `[sequences, time]`."""
        self._check()
        errors, wanted = (
            finite_array(type(self).__name__, name, v, (2,)) for name, v in (("X", X), ("y", y))
        )
        if errors.shape != wanted.shape:
            raise ShapeError(
                f"SpikingControllerRegressor: X is {list(errors.shape)}, y {list(wanted.shape)}; expected one shape"
            )
        self.n_features_in_ = errors.shape[1]
        first = self._first_guess()
        search = _search(first, self.sigma, self.population, self.random_state)
        rng = np.random.default_rng(self.random_state)
        self.loss_curve_: list[float] = []
        champions: list[Array] = []
        for generation in range(self.generations):
            genes = np.stack([search.ask() for _ in range(self.population)])
            here = rng.integers(len(errors))
            losses = mimicry_loss(self._commands(genes, errors[here : here + 1]), wanted[here : here + 1])
            search.tell([(row, float(loss)) for row, loss in zip(genes, losses, strict=True)])
            self.loss_curve_.append(float(losses.min()))
            if generation >= self.generations - max(20, self.generations // 10):
                champions.append(genes[losses.argmin()])
        champions.append(search.mean.clip(0, 1))
        final = np.stack(champions)
        losses = mimicry_loss(self._commands(final, errors), wanted)
        self.genes_, self.loss_ = final[losses.argmin()], float(losses.min())
        return self

    def predict(self, X: Any) -> Array:
        """Commands `[sequences, time]` for errors, each sequence from rest."""
        check_is_fitted(self)
        errors = finite_array(type(self).__name__, "X", X, (2,))
        return np.asarray(self._commands(self.genes_[None], errors)[0])

    def _commands(self, genes: Array, errors: Array) -> Array:
        return controller_scan(errors, *decode(genes, self.neurons, self.variant, self.longest_readout))

    def _first_guess(self) -> Array:
        """Every gene in the middle of its range, thresholds low."""
        parts = []
        for name in gene_rows(self.variant):
            low, high = RANGES[name]
            middle = (FIRST_THRESHOLD - low) / (high - low) if name.endswith("threshold") else 0.5
            parts.append(np.full(self.neurons // 2 if name in PAIR_ROWS else self.neurons, middle))
        return np.concatenate([*parts, [0.5]])

    def _check(self) -> None:
        name = type(self).__name__
        for field, low in (("neurons", 2), ("generations", 1), ("population", 4)):
            check_whole(name, field, getattr(self, field), low)
        if self.neurons % 2:
            raise ConfigError(f"{name}: neurons={self.neurons}, expected an even number: they come in pairs")
        if self.variant not in get_args(Variant):
            raise ConfigError(
                f"{name}.variant: got {self.variant!r}{nearest(str(self.variant), get_args(Variant))}"
            )
        if not 0 < self.sigma <= 1 or not 0 < self.longest_readout <= 1:
            raise ConfigError(
                f"{name}: sigma={self.sigma}, longest_readout={self.longest_readout}; expected both in (0, 1]"
            )


def _search(mean: Array, sigma: float, population: int, seed: int) -> Any:
    try:
        from cmaes import SepCMA  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("evolution needs cmaes: pip install 'neuropil[evolution]'") from None
    bounds = np.stack([np.zeros_like(mean), np.ones_like(mean)], 1)
    return SepCMA(mean, sigma, bounds=bounds, population_size=population, seed=seed)
