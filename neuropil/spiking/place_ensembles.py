"""Ensembles of small spiking modules that each know a few places, with neurons that respond everywhere taken out.

Hussaini, Milford, Fischer (2023): Ensembles of Compact, Region-specific & Regularized Spiking Neural Networks for
Scalable Place Recognition. ICRA. arXiv:2209.08723. The network of a module: Diehl and Cook (2015).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from neuropil.errors import ConfigError, DataError, LabelError, ShapeError
from neuropil.kernels.diehl_cook import OFFSET, STEP, Plasticity, present
from neuropil.spiking.arrays import check_whole, counts_array

Array = np.ndarray[Any, Any]

_LONGEST_RETRY = 1  # a silent presentation is given once more, at twice the rate


class DiehlCookModule(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Excitatory neurons that compete for pictures: spiking, unsupervised, each becoming a picture's detector.

    A picture becomes Poisson spikes of its pixels. Neurons integrate them as conductances; whoever fires excites its
    own inhibitory neuron, which silences all others, strengthens what made it fire and becomes harder to excite.
    `transform` counts the spikes of each neuron while a picture is shown. `X` is `[pictures, pixels]`, pixels >= 0 in
    hertz after `intensity`: a byte of 255 is 64 Hz by default.

    Args:
        units: Excitatory neurons, and as many inhibitory ones.
        epochs: Passes over the pictures, each in a new order.
        intensity: Hertz of a pixel of value one.
        duration: Of a presentation, milliseconds.
        rate_pre: Change of a weight at a presynaptic spike, in units of the postsynaptic trace; Diehl and Cook weaken
            (negative), the ensembles' code strengthens (positive).
        rate_post: Change of a weight at a postsynaptic spike.
        theta_plus: Growth of a neuron's threshold with each of its spikes while learning, millivolts.
        total_weight: Sum of the weights of each neuron, per 784 pixels, restored before each picture.
        random_state: Seed of weights, orders and spikes.

    Attributes:
        weights_: `[pixels, units]`, in [0, 1].
        theta_: Thresholds' growth, millivolts.

    Raises ConfigError for a setting out of range, DataError and ShapeError for pictures that do not fit.

    >>> pictures = np.kron(np.eye(4), np.full((1, 25), 255.0))  # four patches of light
    >>> module = DiehlCookModule(12, epochs=6, intensity=0.5, random_state=0).fit(pictures)
    >>> module.transform(pictures).shape
    (4, 12)
    """

    weights_: Array
    theta_: Array

    def __init__(
        self,
        units: int = 100,
        *,
        epochs: int = 8,
        intensity: float = 0.25,
        duration: float = 350.0,
        rate_pre: float = 1e-4,
        rate_post: float = 1e-2,
        theta_plus: float = 0.05,
        total_weight: float = 78.0,
        random_state: int | None = None,
    ) -> None:
        self.units = units
        self.epochs = epochs
        self.intensity = intensity
        self.duration = duration
        self.rate_pre = rate_pre
        self.rate_post = rate_post
        self.theta_plus = theta_plus
        self.total_weight = total_weight
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> DiehlCookModule:
        """Learn pictures from new weights."""
        pictures = self._checked(X)
        rng = np.random.default_rng(self.random_state)
        self.n_features_in_ = pictures.shape[1]
        self.weights_ = 0.003 + 0.3 * rng.random((pictures.shape[1], self.units))
        self.theta_ = np.full(self.units, OFFSET)
        plasticity = Plasticity(self.rate_pre, self.rate_post, self.theta_plus)
        total = self.total_weight * pictures.shape[1] / 784
        for _ in range(self.epochs):
            for index in rng.permutation(len(pictures)):
                self.weights_ *= total / self.weights_.sum(0)
                self._show(pictures[index], rng, plasticity)
        return self

    def transform(self, X: Any) -> Array:
        """Spikes of each neuron while each picture is shown, `[pictures, units]`; nothing is learned."""
        check_is_fitted(self)
        pictures = self._checked(X)
        if pictures.shape[1] != self.n_features_in_:
            raise ShapeError(
                f"{type(self).__name__}: pictures of {pictures.shape[1]} pixels, expected {self.n_features_in_}"
            )
        found = []
        for picture in pictures:  # spikes are drawn by the picture, so that each answer is its own
            draw = np.random.default_rng([self.random_state or 0, int(picture.sum()) % 2**31, 1])
            found.append(self._show(picture, draw, Plasticity()))
        return np.stack(found)

    def _show(self, picture: Array, rng: np.random.Generator, plasticity: Plasticity) -> Array:
        counts: Array = np.zeros(self.units, np.int64)
        for attempt in range(1 + _LONGEST_RETRY):
            offsets, inputs = poisson_events(picture * self.intensity * 2**attempt, self.duration, rng)
            counts = present(offsets, inputs, self.weights_, self.theta_, plasticity)
            if counts.any():
                break
        return counts

    def _checked(self, X: Any) -> Array:
        name = type(self).__name__
        check_whole(name, "units", self.units, 2)
        check_whole(name, "epochs", self.epochs, 1)
        for field in ("intensity", "duration", "total_weight"):
            if not 0 < getattr(self, field) < math.inf:
                raise ConfigError(f"{name}.{field}: got {getattr(self, field)}, expected a number > 0")
        for field in ("rate_post", "theta_plus"):
            if not 0 <= getattr(self, field) < math.inf:
                raise ConfigError(f"{name}.{field}: got {getattr(self, field)}, expected a number >= 0")
        if not math.isfinite(self.rate_pre):
            raise ConfigError(f"{name}.rate_pre: got {self.rate_pre}, expected a finite number")
        return counts_array(name, "X", X, (2,))


def poisson_events(rates: Array, duration: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Poisson spikes of inputs with `rates` in hertz, by step: `inputs[offsets[t] : offsets[t + 1]]` fire in step `t`.

    >>> offsets, inputs = poisson_events(np.array([0.0, 100.0]), 1000.0, np.random.default_rng(0))
    >>> len(offsets), set(inputs.tolist())
    (2001, {1})
    """
    steps = round(duration / STEP)
    inputs = np.repeat(np.arange(len(rates)), rng.poisson(rates * steps * STEP / 1000))
    times = rng.integers(0, steps, len(inputs))
    order = np.lexsort((inputs, times))
    return np.searchsorted(times[order], np.arange(steps + 1)), inputs[order]


def remove_hyperactive(reference: Any, threshold: int) -> Array:
    """Which neurons to keep: those that respond to fewer than `threshold` of the reference pictures of all regions.

    A module was trained on its own region alone, and neurons that fire to pictures of many regions speak up everywhere.
    `reference` holds the spikes `[pictures, neurons]`; a threshold of 0 keeps all.

    >>> remove_hyperactive([[1, 0, 2], [3, 0, 0], [1, 1, 0]], threshold=2).tolist()
    [False, True, True]
    """
    counts = counts_array("remove_hyperactive", "reference", reference, (2,))
    check_whole("remove_hyperactive", "threshold", threshold, 0)
    responses = (counts > 0).sum(0)
    keep: Array = responses < threshold if threshold else np.ones(counts.shape[1], bool)
    return keep


class ModularEnsemble(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Place recognition by spiking modules, each trained on some consecutive places, all asked at once.

    Classes are places in the order of their labels; each module learns an equal share of them. Every neuron stands for
    the place of its module that it answers to most, a place's score is the mean number of spikes of its neurons, and
    the best score over all modules wins. Neurons that respond to `hyperactive` or more of the reference pictures of all
    regions are left out: without this, modules compete for queries by being loud.

    Args:
        modules: Number of modules; one is a monolithic network.
        units: Excitatory neurons of each module.
        hyperactive: See `remove_hyperactive`; 0 keeps all neurons. `choose` picks it on calibration queries.
        epochs, intensity, duration, rate_pre, rate_post, theta_plus: Of each `DiehlCookModule`.
        random_state: Seed.

    >>> pictures = np.kron(np.eye(4), np.full((1, 25), 255.0))
    >>> ensemble = ModularEnsemble(2, 12, epochs=6, intensity=0.5, random_state=0).fit(pictures, np.arange(4))
    >>> ensemble.predict(pictures).shape
    (4,)
    """

    def __init__(
        self,
        modules: int = 8,
        units: int = 100,
        *,
        hyperactive: int = 0,
        epochs: int = 8,
        intensity: float = 0.25,
        duration: float = 350.0,
        rate_pre: float = 1e-4,
        rate_post: float = 1e-2,
        theta_plus: float = 0.05,
        random_state: int | None = None,
    ) -> None:
        self.modules = modules
        self.units = units
        self.hyperactive = hyperactive
        self.epochs = epochs
        self.intensity = intensity
        self.duration = duration
        self.rate_pre = rate_pre
        self.rate_post = rate_post
        self.theta_plus = theta_plus
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> ModularEnsemble:
        """Train every module on its region, and run all of them on all reference pictures."""
        pictures, labels = counts_array(type(self).__name__, "X", X, (2,)), np.asarray(y)
        if labels.shape != (len(pictures),):
            raise LabelError(
                f"ModularEnsemble: {len(pictures)} pictures and labels of shape {list(labels.shape)}"
            )
        self.classes_ = np.unique(labels)
        check_whole("ModularEnsemble", "modules", self.modules, 1, len(self.classes_))
        self.n_features_in_ = pictures.shape[1]
        self.modules_ = []
        for number, places in enumerate(np.array_split(self.classes_, self.modules)):
            module = DiehlCookModule(
                self.units, epochs=self.epochs, intensity=self.intensity, duration=self.duration,
                rate_pre=self.rate_pre, rate_post=self.rate_post, theta_plus=self.theta_plus,
                random_state=None if self.random_state is None else 1000 * self.random_state + number,
            )  # fmt: skip
            self.modules_.append(module.fit(pictures[np.isin(labels, places)]))
        self.reference_ = self.responses(pictures)
        self.owner_ = self._owners(self.reference_, labels)
        return self

    def responses(self, X: Any) -> Array:
        """Spikes of all neurons of all modules, `[pictures, modules * units]`."""
        check_is_fitted(self)
        return np.concatenate([module.transform(X) for module in self.modules_], axis=1)

    def scores(self, responses: Any) -> Array:
        """Mean spikes of each place's kept neurons, `[pictures, places]`, from what `responses` gave."""
        check_is_fitted(self)
        kept = remove_hyperactive(self.reference_, self.hyperactive) & (self.owner_ >= 0)
        belongs = (self.owner_[:, None] == np.arange(len(self.classes_))) & kept[:, None]
        found: Array = responses @ (belongs / np.maximum(belongs.sum(0), 1))
        return found

    def choose(self, responses: Any, labels: Any, thresholds: Any) -> int:
        """The threshold of hyperactive neurons with the highest recall on calibration queries; it is taken over."""
        candidates = [int(threshold) for threshold in thresholds]
        if not candidates:
            raise DataError("ModularEnsemble.choose: no thresholds to choose from")
        recalls = []
        for self.hyperactive in candidates:
            recalls.append(
                float((self.classes_[self.scores(responses).argmax(1)] == np.asarray(labels)).mean())
            )
        self.hyperactive = candidates[int(np.argmax(recalls))]
        return self.hyperactive

    def decision_function(self, X: Any) -> Array:
        """Scores of all places, `[pictures, places]`."""
        return self.scores(self.responses(X))

    def predict(self, X: Any) -> Array:
        """The place of each picture."""
        found: Array = self.classes_[self.decision_function(X).argmax(1)]
        return found

    def _owners(self, reference: Array, labels: Array) -> Array:
        """Index of the place of its own module that each neuron answers to most, -1 for a silent one."""
        means = np.stack([reference[labels == place].mean(0) for place in self.classes_])
        owners = np.full(reference.shape[1], -1)
        first = 0
        for number, places in enumerate(np.array_split(self.classes_, self.modules)):
            mine = slice(number * self.units, (number + 1) * self.units)
            own = means[first : first + len(places), mine]
            owners[mine] = np.where(own.any(0), first + own.argmax(0), -1)
            first += len(places)
        return owners
