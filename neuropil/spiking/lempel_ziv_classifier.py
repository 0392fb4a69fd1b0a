"""Telling spike trains apart by how complex they are."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from neuropil.errors import ConfigError, DataError, LabelError, ShapeError, nearest
from neuropil.kernels.lempel_ziv import lempel_ziv_counts
from neuropil.spiking.arrays import finite_array

Array = np.ndarray[Any, Any]
Measure = Literal["entropy", "length"]

_SYMBOLS = 256


def complexities(trains: Any, measure: Measure = "entropy") -> Array:
    """Lempel-Ziv complexity of every train, `[samples, units]` for trains `[samples, time(, units)]`.

    With `measure="length"` it is bits per step, `phrases * log2(time) / time`; with `"entropy"` this over the entropy
    of the train's own symbols, so that trains which differ in rate alone come out alike (0 for a train that never
    changes).

    >>> complexities([[0, 1] * 32, [0, 0, 0, 1, 1, 0, 1, 0] * 8], "length").round(2).tolist()
    [[0.28], [0.47]]
    """
    array = finite_array("complexities", "trains", trains, (2, 3))
    array = array[..., None] if array.ndim == 2 else array
    low, high = array.min(), array.max()
    if (array != array.round()).any() or low < 0 or high >= _SYMBOLS:
        raise DataError(
            f"complexities: trains hold numbers from {low:.4g} to {high:.4g}, expected spikes: whole, 0 to 255"
        )
    samples, steps, units = array.shape
    rows = np.ascontiguousarray(array.transpose(0, 2, 1).reshape(-1, steps).astype(np.uint8))
    rate = lempel_ziv_counts(rows) * math.log2(max(steps, 2)) / steps
    if measure == "entropy":
        shares = np.stack([(rows == symbol).mean(1) for symbol in range(int(high) + 1)])
        entropy = -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(0)
        rate = np.divide(rate, entropy, out=np.zeros_like(rate), where=entropy > 0)
    return np.asarray(rate.reshape(samples, units))


class LempelZivClassifier(TransformerMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Nearest class by the Lempel-Ziv complexity of each unit's spike train.

    `X` is `[samples, time]` (one unit) or `[samples, time, units]`, spikes as 0 and 1 (or counts up to 255). Each class
    is the mean complexity of every unit over its samples; an answer is the nearest class, units measured in their
    pooled standard deviation within classes. `transform` gives complexities, `partial_fit` learns from more samples.

    Args:
        measure: `"entropy"` divides by the entropy of each train's own symbols and leaves the rate out of it,
            `"length"` is the plain number of phrases per step.

    Raises:
        ConfigError: An unknown measure.
        DataError: Numbers that are no spikes, or samples that are empty.
        ShapeError: Another number of units than before, or other lengths of `X` and `y`.
        LabelError: A class that the first `partial_fit` did not name.

    The number of phrases depends on the length of a train: compare trains of one length. From "Learning internal
    biological neuron parameters and complexity-based encoding for improved spiking neural networks performance"
    (2025); the count of phrases is that of Lempel and Ziv (1976).

    >>> rng = np.random.default_rng(0)
    >>> irregular = rng.random((20, 200)) < 0.25  # fires at the rate of every fourth step
    >>> regular = np.tile(np.arange(200) % 4 == 0, (20, 1))
    >>> X, y = np.concatenate([irregular, regular]), np.repeat([0, 1], 20)
    >>> LempelZivClassifier().fit(X, y).score(X, y)
    1.0
    """

    def __init__(self, measure: Measure = "entropy") -> None:
        self.measure = measure

    def fit(self, X: Any, y: Any) -> LempelZivClassifier:
        """Learn the classes' mean complexities from trains `X` and labels `y` `[samples]`."""
        for name in ("classes_", "counts_", "sums_", "squares_", "means_", "scale_", "n_features_in_"):
            if hasattr(self, name):
                delattr(self, name)
        return self.partial_fit(X, y)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> LempelZivClassifier:
        """Learn from more trains; the first call names all `classes` where its samples are not of all of them."""
        features, labels = self._features(X), np.asarray(y)
        if labels.shape != (len(features),):
            raise ShapeError(
                f"LempelZivClassifier: {len(features)} trains, labels of shape {list(labels.shape)}"
            )
        if not hasattr(self, "classes_"):
            self.classes_ = np.unique(labels if classes is None else np.asarray(classes))
            self.n_features_in_ = features.shape[1]
            self.counts_ = np.zeros(len(self.classes_))
            self.sums_ = np.zeros((len(self.classes_), self.n_features_in_))
            self.squares_ = np.zeros(self.n_features_in_)
        places = np.searchsorted(self.classes_, labels).clip(max=len(self.classes_) - 1)
        if (self.classes_[places] != labels).any():
            raise LabelError(
                f"LempelZivClassifier: label {labels[self.classes_[places] != labels][0]} is none of the "
                f"{len(self.classes_)} classes it knows"
            )
        np.add.at(self.counts_, places, 1)
        np.add.at(self.sums_, places, features)
        self.squares_ += (features**2).sum(0)
        seen = np.maximum(self.counts_, 1)[:, None]
        self.means_ = self.sums_ / seen
        within = (self.squares_ - (self.sums_**2 / seen).sum(0)) / self.counts_.sum()
        self.scale_ = np.sqrt(np.maximum(within, 1e-12))
        return self

    def transform(self, X: Any) -> Array:
        """Complexities `[samples, units]`."""
        check_is_fitted(self)
        return self._features(X)

    def decision_function(self, X: Any) -> Array:
        """Minus the squared distance to each class, `[samples, classes]`; of two classes how much nearer the second."""
        features = self.transform(X)
        distances = (((features[:, None] - self.means_) / self.scale_) ** 2).sum(-1)
        distances[:, self.counts_ == 0] = np.inf  # named, and not yet seen
        return np.asarray(distances[:, 0] - distances[:, 1] if len(self.classes_) == 2 else -distances)

    def predict(self, X: Any) -> Array:
        """Class of every sample."""
        said = self.decision_function(X)
        return np.asarray(self.classes_[(said > 0).astype(int) if said.ndim == 1 else said.argmax(1)])

    def _features(self, X: Any) -> Array:
        if self.measure not in get_args(Measure):
            raise ConfigError(
                f"LempelZivClassifier.measure: got {self.measure!r}{nearest(str(self.measure), get_args(Measure))}"
            )
        features = complexities(X, self.measure)
        known = getattr(self, "n_features_in_", features.shape[1])
        if features.shape[1] != known:
            raise ShapeError(
                f"LempelZivClassifier: X has {features.shape[1]} units, expected {known} as in fit"
            )
        return features
