"""Active self-paced learning: the machine labels what it is sure of, a person labels what it is not.

Lin, Wang, Meng, Zuo, Zhang: Active Self-Paced Learning for Cost-Effective and Progressive Face Identification.
IEEE Transactions on Pattern Analysis and Machine Intelligence 40, 2018. arXiv:1701.03555
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.svm import LinearSVC
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from neuropil.errors import ConfigError, DataError, nearest

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
STRATEGIES = ("uncertain", "random")


@dataclass(frozen=True)
class SelfPacedWeights:
    """How much a sample counts that the machine has labelled itself, by its loss under that label.

    The weights minimise `sum_i v_i l_i + threshold (v_i^2 / 2 - v_i)` over `v` in [0, 1], which has the closed form
    `v_i = max(0, 1 - l_i / threshold)`: easy samples count nearly whole, those with a loss of `threshold` or more not
    at all. Raising the threshold lets harder samples in. `threshold` is a number or an array that broadcasts against
    the losses, such as one per class; losses are not negative and in the unit of the threshold.

    >>> SelfPacedWeights(0.5)([0.0, 0.25, 2.0])
    array([1. , 0.5, 0. ])
    """

    threshold: float | Floats

    def __post_init__(self) -> None:
        if not np.all(np.asarray(self.threshold) > 0):
            raise ConfigError(f"SelfPacedWeights.threshold: got {self.threshold}, expected more than 0")

    def __call__(self, losses: ArrayLike) -> Floats:
        """Weights in [0, 1], shaped as the losses."""
        weights: Floats = np.clip(1 - np.asarray(losses, dtype=np.float64) / self.threshold, 0.0, 1.0)
        return weights

    def objective(self, weights: ArrayLike, losses: ArrayLike) -> float:
        """What the weights minimise."""
        v = np.asarray(weights, dtype=np.float64)
        return float((v * np.asarray(losses) + self.threshold * (0.5 * v**2 - v)).sum())


class PseudoLabels(NamedTuple):
    """What the machine says of unlabelled samples, and how sure it is."""

    labels: Integers  # [samples], position of the class; -1 where it says nothing
    weights: Floats  # [samples, classes], how much each sample counts for each one-vs-all classifier


def pseudo_labels(decisions: Floats, thresholds: Floats) -> PseudoLabels:
    """Label samples that exactly one of the one-vs-all classifiers claims.

    `decisions` are signed distances `[samples, classes]`, `thresholds` one per class. Loss is the hinge under the
    label given; samples that several classifiers claim, or none, get no label and no weight.

    >>> found = pseudo_labels(np.array([[1.2, -0.9], [0.3, 0.4], [-1.0, 0.8]]), np.array([0.5, 0.5]))
    >>> found.labels
    array([ 0, -1,  1])
    >>> found.weights.round(1)
    array([[1. , 0.8],
           [0. , 0. ],
           [1. , 0.6]])
    """
    claimed = decisions > 0
    sure = claimed.sum(axis=1) == 1
    losses = np.maximum(0.0, 1.0 - np.where(claimed, 1.0, -1.0) * decisions)
    weights = SelfPacedWeights(thresholds)(losses) * sure[:, None]
    chosen = np.argmax(decisions, axis=1)
    own = np.take_along_axis(weights, chosen[:, None], axis=1)[:, 0]
    return PseudoLabels(np.where(own > 0, chosen, -1).astype(np.int64), weights * (own > 0)[:, None])


class ActiveSelfPacedLearner(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classifier that asks for few labels and gives itself the rest.

    One linear one-vs-all classifier per class learns from the labelled samples, which count whole, and from unlabelled
    samples under labels of its own, which count by how easy they are (`SelfPacedWeights`). Labels and weights are
    found anew in every round, and each class's threshold grows with the share of answers on which the machine
    had been right. `query` names the samples that it is least sure of: a person labels them, `teach` learns them.

    Args:
        estimator: binary classifier with `decision_function` and `fit(X, y, sample_weight)`, copied for each class;
            `LinearSVC(class_weight="balanced")` by default. Decisions should have a margin of 1.
        threshold: hinge loss, in units of the margin, at which an unlabelled sample stops to count; more than 0.
            None learns from labelled samples alone, which is ordinary active learning.
        growth: factor of a class's threshold per round while all its answers were foreseen; at least 1.
        iterations: alternations of labelling and fitting per round; at least 1.
        strategy: what `query` names: "uncertain", the smallest distances between the two best classes, or "random".
        verify: share of a query, in [0, 1], that goes to randomly chosen confident samples to certify them again.
        features: scikit-learn transformer that is fitted anew in each round to labelled and self-labelled samples,
            as the paper refines its network; None takes features as they are.
        random_state: seed, RandomState or None.

    Attributes:
        classes_: the labels met so far, sorted.
        estimators_: one classifier per class.
        thresholds_: present threshold per class.
        pseudo_: `PseudoLabels` of the unlabelled samples of the last round.
        n_labels_: labels given by people so far.

    Raises:
        ConfigError: a setting out of range, or samples of fewer than two classes.
        DataError: a query for more samples than there are.

    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> X, known = X / 16, np.arange(30)   # a person has labelled 30
    >>> learner = ActiveSelfPacedLearner(random_state=0).fit(X[known], y[known], unlabelled=X[100:])
    >>> ask = 100 + learner.query(X[100:], 10)
    >>> learner.teach(X[ask], y[ask], unlabelled=X[100:]).n_labels_
    40
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        threshold: float | None = 0.3,
        growth: float = 1.15,
        iterations: int = 3,
        strategy: Literal["uncertain", "random"] = "uncertain",
        verify: float = 0.0,
        features: Any = None,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.threshold = threshold
        self.growth = growth
        self.iterations = iterations
        self.strategy = strategy
        self.verify = verify
        self.features = features
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, unlabelled: ArrayLike | None = None) -> ActiveSelfPacedLearner:
        """Begin with labelled samples `[samples, features]` and a pool of unlabelled ones."""
        self._check_settings()
        inputs, labels = validate_data(self, X, y)
        check_classification_targets(labels)
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._X: NDArray[Any] = inputs
        self._y: NDArray[Any] = labels
        self.n_rounds_, self.n_labels_ = 0, len(labels)
        self._set_classes({})
        self._foreseen: dict[Any, tuple[int, int]] = {}
        self._learn(unlabelled)
        return self

    def teach(
        self, X: ArrayLike, y: ArrayLike, unlabelled: ArrayLike | None = None
    ) -> ActiveSelfPacedLearner:
        """Learn more labels, classes not met before among them, and label the pool anew.

        `unlabelled` is the pool as it is now. Self-labelled samples that it does not hold are forgotten.
        """
        check_is_fitted(self)
        inputs, labels = validate_data(self, X, y, reset=False)
        check_classification_targets(labels)
        before = dict(zip(self.classes_.tolist(), self.thresholds_.tolist(), strict=True))
        self._note_answers(labels, self.predict(inputs))
        self._X, self._y = np.concatenate([self._X, inputs]), np.concatenate([self._y, labels])
        self.n_rounds_ += 1
        self.n_labels_ += len(labels)
        self._set_classes({label: value * self._growth_of(label) for label, value in before.items()})
        self._learn(unlabelled)
        return self

    def query(self, unlabelled: ArrayLike, count: int = 10) -> Integers:
        """Positions `[count]` of the unlabelled samples to ask a person about, the most wanted first.

        The same question has the same answer until something is taught.
        """
        check_is_fitted(self)
        pool = validate_data(self, unlabelled, reset=False)
        if not 1 <= count <= len(pool):
            raise DataError(
                f"query: asked for {count} of {len(pool)} unlabelled samples, expected 1 to {len(pool)}"
            )
        generator = np.random.default_rng([self._seed, self.n_rounds_])
        if self.strategy == "random":
            return generator.permutation(len(pool))[:count].astype(np.int64)
        decisions = self._decisions(pool)
        best = np.partition(decisions, -2, axis=1)
        order = np.argsort(best[:, -1] - best[:, -2], kind="stable")
        certified = order[:0]
        if self.verify and self.threshold is not None:
            confident = np.flatnonzero(pseudo_labels(decisions, self.thresholds_).labels >= 0)
            certified = generator.permutation(confident)[: round(self.verify * count)]
        doubtful = order[~np.isin(order, certified)][: count - len(certified)]
        return np.concatenate([doubtful, certified]).astype(np.int64)

    def decision_function(self, X: ArrayLike) -> Floats:
        """Signed distances `[samples, classes]`; of two classes the difference, `[samples]`, as is usual."""
        check_is_fitted(self)
        decisions = self._decisions(validate_data(self, X, reset=False))
        return decisions[:, 1] - decisions[:, 0] if len(self.classes_) == 2 else decisions

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels `[samples]`."""
        decisions = self.decision_function(X)
        chosen = (decisions > 0).astype(int) if decisions.ndim == 1 else np.argmax(decisions, axis=1)
        labels: NDArray[Any] = self.classes_[chosen]
        return labels

    def _learn(self, unlabelled: ArrayLike | None) -> None:
        """Alternate: fit, label the pool by what was fitted, fit again."""
        pool = self._X[:0] if unlabelled is None else self._pool(unlabelled)
        none = np.zeros((len(pool), len(self.classes_)))
        self.pseudo_ = PseudoLabels(np.full(len(pool), -1, dtype=np.int64), none)
        seed = int(np.random.default_rng([self._seed, self.n_rounds_, 1]).integers(2**31 - 1))
        self._fit_classifiers(pool, seed)
        if self.threshold is None or not len(pool):
            return
        for _ in range(self.iterations):
            self.pseudo_ = pseudo_labels(self._decisions(pool), self.thresholds_)
            self._fit_classifiers(pool, seed)

    def _fit_classifiers(self, pool: NDArray[Any], seed: int) -> None:
        """Fit features and one classifier per class to labelled and self-labelled samples."""
        sure = self.pseudo_.labels >= 0
        X = np.concatenate([self._X, pool[sure]])
        own = np.searchsorted(self.classes_, self._y)
        targets = np.concatenate([own, self.pseudo_.labels[sure]])
        weights = np.concatenate([np.ones((len(own), len(self.classes_))), self.pseudo_.weights[sure]])
        if self.features is not None:
            self.features_ = clone(self.features).fit(X, self.classes_[targets])
            X = self.features_.transform(X)
        found = []
        for index in range(len(self.classes_)):
            classifier = clone(self._template())
            if "random_state" in classifier.get_params():
                classifier.set_params(random_state=seed)
            counts = weights[:, index] > 0
            found.append(
                classifier.fit(X[counts], targets[counts] == index, sample_weight=weights[counts, index])
            )
        self.estimators_ = found

    def _template(self) -> Any:
        return LinearSVC(class_weight="balanced") if self.estimator is None else self.estimator

    def _decisions(self, X: NDArray[Any]) -> Floats:
        if self.features is not None:
            X = self.features_.transform(X)
        return np.stack([classifier.decision_function(X) for classifier in self.estimators_], axis=1)

    def _pool(self, unlabelled: ArrayLike) -> NDArray[Any]:
        pool = check_array(unlabelled, ensure_min_samples=0, input_name="unlabelled")
        if pool.shape[1] != self.n_features_in_:
            raise DataError(
                f"unlabelled: {pool.shape[1]} features, expected {self.n_features_in_} as in the labelled samples"
            )
        return np.asarray(pool)

    def _set_classes(self, thresholds: dict[Any, float]) -> None:
        self.classes_ = unique_labels(self._y)
        if len(self.classes_) < 2:
            raise ConfigError(
                f"ActiveSelfPacedLearner: labelled samples of one class only, {self.classes_[0]!r}; expected 2 or more"
            )
        start = 1.0 if self.threshold is None else self.threshold
        self.thresholds_ = np.array([thresholds.get(label, start) for label in self.classes_.tolist()])

    def _note_answers(self, y: NDArray[Any], said: NDArray[Any]) -> None:
        """Count, class by class, how often people said what the machine would have said."""
        for answer, guess in zip(y.tolist(), said.tolist(), strict=True):
            right, asked = self._foreseen.get(answer, (0, 0))
            self._foreseen[answer] = right + (answer == guess), asked + 1

    def _growth_of(self, label: Any) -> float:
        right, asked = self._foreseen.get(label, (0, 0))
        return 1 + (self.growth - 1) * (right + 1) / (asked + 1)  # as if it had been right once

    def _check_settings(self) -> None:
        rules = (
            ("threshold", self.threshold is None or self.threshold > 0, "more than 0, or None"),
            ("growth", self.growth >= 1, "at least 1"),
            ("iterations", self.iterations >= 1, "at least 1"),
            ("verify", 0 <= self.verify <= 1, "a share in [0, 1]"),
        )
        for name, fine, expected in rules:
            if not fine:
                raise ConfigError(
                    f"ActiveSelfPacedLearner.{name}: got {getattr(self, name)}, expected {expected}"
                )
        if self.strategy not in STRATEGIES:
            raise ConfigError(
                f"ActiveSelfPacedLearner.strategy: no strategy is called {self.strategy!r}"
                f"{nearest(str(self.strategy), STRATEGIES)}"
            )
