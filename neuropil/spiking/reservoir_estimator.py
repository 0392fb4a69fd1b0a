"""What reservoirs share as scikit-learn estimators: sequences in, a ridge readout of the states out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from neuropil.errors import ConfigError, LabelError, ShapeError, nearest
from neuropil.spiking.arrays import check_whole, finite_array
from neuropil.spiking.ridge import RidgeReadout

Array = np.ndarray[Any, Any]
Reading = Literal["steps", "mean", "last"]


class Reservoir(BaseEstimator):  # type: ignore[misc]
    """Base of reservoirs: subclasses make the connections and run them.

    `X` is `[sequences, time, inputs]`, or one sequence `[time, inputs]`, or a list of sequences of unequal length.
    """

    # settings of every subclass
    units: int
    washout: int
    reading: Reading
    use_inputs: bool
    alpha: float
    random_state: int | None

    @abstractmethod
    def _make(self, inputs: int, rng: np.random.Generator) -> None:
        """Draw the connections."""

    @abstractmethod
    def _run(self, x: Array) -> Array:
        """States `[sequences, time, units]` for inputs `[sequences, time, inputs]`, from rest."""

    def states(self, X: Any) -> Any:
        """States of every step: `[sequences, time, units]`; of one sequence `[time, units]`."""
        check_is_fitted(self)
        groups, single = self._sequences(X)
        if len(groups) > 1:
            raise ShapeError(f"{type(self).__name__}: sequences of unequal length; run them one by one")
        states = self._run(groups[0][1])
        return states[0] if single else states

    def _sequences(self, X: Any) -> tuple[list[tuple[Array, Array]], bool]:
        """Groups of sequences of equal length, each with their places in `X`; whether `X` is a single one."""
        name = type(self).__name__
        if isinstance(X, Sequence) and len({np.shape(each) for each in X}) > 1:
            rows = [finite_array(name, f"X[{place}]", each, (2,)) for place, each in enumerate(X)]
            lengths = sorted({len(row) for row in rows})
            places = [np.flatnonzero([len(row) == length for row in rows]) for length in lengths]
            groups = [(where, np.stack([rows[place] for place in where])) for where in places]
        else:
            array = finite_array(name, "X", X, (2, 3))
            if array.ndim == 2:
                return [(np.arange(1), self._checked(array[None]))], True
            groups = [(np.arange(len(array)), array)]
        return [(where, self._checked(x)) for where, x in groups], False

    def _checked(self, x: Array) -> Array:
        known = getattr(self, "n_features_in_", x.shape[2])
        if x.shape[2] != known:
            raise ShapeError(f"{type(self).__name__}: X has {x.shape[2]} inputs, expected {known} as in fit")
        if x.shape[1] <= self.washout:
            raise ShapeError(
                f"{type(self).__name__}: sequences of {x.shape[1]} steps, expected more than washout={self.washout}"
            )
        return x

    def _prepare(self, X: Any) -> tuple[list[tuple[Array, Array]], bool]:
        """The sequences; connections are drawn if there are none yet."""
        name = type(self).__name__
        check_whole(name, "units", self.units, 1)
        check_whole(name, "washout", self.washout, 0)
        if self.reading not in get_args(Reading):
            raise ConfigError(
                f"{name}.reading: got {self.reading!r}{nearest(str(self.reading), get_args(Reading))}"
            )
        groups, single = self._sequences(X)
        if not hasattr(self, "readout_"):
            self.n_features_in_ = groups[0][1].shape[2]
            self._make(self.n_features_in_, np.random.default_rng(self.random_state))
            self.readout_ = RidgeReadout(self.alpha)
        return groups, single

    def _features(self, x: Array, *, learning: bool = False) -> Array:
        """What the readout sees: `[sequences, steps, features]`, or `[sequences, features]`."""
        states = self._run(x)
        if self.use_inputs:
            states = np.concatenate([states, x], axis=2)
        if self.reading == "last":
            return np.asarray(states[:, -1])
        if self.reading == "mean":
            return np.asarray(states[:, self.washout :].mean(1))
        return states[:, self.washout :] if learning else states

    def _learn(self, X: Any, targets: Array) -> None:
        """Add sequences and their targets, `[sequences, (time,) outputs]`, to the readout."""
        groups, _ = self._prepare(X)
        sequences = sum(len(where) for where, _ in groups)
        steps = self.reading == "steps"
        for where, x in groups:
            wanted = (sequences, x.shape[1]) if steps else (sequences,)
            if targets.shape[:-1] != wanted:
                raise ShapeError(
                    f"{type(self).__name__}: y is given for {list(targets.shape[:-1])}, reading={self.reading!r} "
                    f"needs {list(wanted)}{' (sequences, steps)' if steps else ' (one for each sequence)'}"
                )
            features, y = self._features(x, learning=True), targets[where]
            y = y[:, self.washout :] if steps else y
            self.readout_.partial_fit(features.reshape(-1, features.shape[-1]), y.reshape(-1, y.shape[-1]))

    def _answer(self, X: Any) -> tuple[Array, bool]:
        """What the readout says, `[sequences, (time,) outputs]`, and whether `X` is a single sequence."""
        check_is_fitted(self)
        groups, single = self._sequences(X)
        if self.reading == "steps" and len(groups) > 1:
            raise ShapeError(
                f"{type(self).__name__}: sequences of unequal length; with reading='steps' predict them one by one"
            )
        found: list[tuple[Array, Array]] = []
        for where, x in groups:
            features = self._features(x)
            said = self.readout_.predict(features.reshape(-1, features.shape[-1]))
            found.append((where, said.reshape(*features.shape[:-1], -1)))
        order = np.argsort(np.concatenate([where for where, _ in found]))
        return np.concatenate([said for _, said in found])[order], single

    def _forget(self) -> None:
        for name in [name for name in vars(self) if name.endswith("_") and not name.startswith("_")]:
            delattr(self, name)


class ReservoirRegressor(MultiOutputMixin, RegressorMixin, Reservoir):  # type: ignore[misc]
    """A reservoir whose readout gives numbers, at every step or once for each sequence."""

    def fit(self, X: Any, y: Any) -> Any:
        """Draw connections and learn the readout.

        `y` is `[sequences, time]` or `[sequences, time, outputs]` with `reading="steps"` (`[time]` or
        `[time, outputs]` for one sequence), else `[sequences]` or `[sequences, outputs]`.
        """
        self._forget()
        return self.partial_fit(X, y)

    def partial_fit(self, X: Any, y: Any) -> Any:
        """Learn from some sequences more, with the same connections; as if all had been given to `fit`."""
        _, single = self._prepare(X)
        targets = finite_array(type(self).__name__, "y", y, (1, 2, 3))
        lead = 2 if self.reading == "steps" else 1
        if single and self.reading == "steps":
            targets = targets[None]
        self._flat = targets.ndim == lead
        self._learn(X, targets[..., None] if self._flat else targets)
        return self

    def predict(self, X: Any) -> Array:
        """Numbers in the shape that `fit` was given."""
        said, single = self._answer(X)
        said = said[..., 0] if self._flat else said
        answer: Array = said[0] if single and self.reading == "steps" else said
        return answer

    def score(self, X: Any, y: Any) -> float:
        """Share of the variance of `y` that is explained, after the washout."""
        said, wanted = self.predict(X), np.asarray(y, np.float64)
        if self.reading == "steps":
            axis = 0 if np.ndim(X) == 2 else 1
            kept = [slice(None)] * axis + [slice(self.washout, None)]
            said, wanted = said[tuple(kept)], wanted[tuple(kept)]
        outputs = 1 if self._flat else said.shape[-1]
        return float(r2_score(wanted.reshape(-1, outputs), said.reshape(-1, outputs)))


class ReservoirClassifier(ClassifierMixin, Reservoir):  # type: ignore[misc]
    """A reservoir whose readout names the class of a sequence, or of every step."""

    def fit(self, X: Any, y: Any) -> Any:
        """Draw connections and learn the readout from a label for each sequence (or step)."""
        self._forget()
        return self.partial_fit(X, y)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Any:
        """Learn from some sequences more; the first call names all `classes`, or its labels are all there are."""
        _, single = self._prepare(X)
        labels = np.asarray(y)
        if not hasattr(self, "classes_"):
            self.classes_ = np.unique(labels if classes is None else np.asarray(classes))
        unknown = np.setdiff1d(labels, self.classes_)
        if len(unknown):
            raise LabelError(f"{type(self).__name__}: y holds {unknown[0]!r}, which is none of the classes")
        if single and self.reading == "steps":
            labels = labels[None]
        self._learn(X, 2.0 * (labels[..., None] == self.classes_) - 1)
        return self

    def decision_function(self, X: Any) -> Array:
        """How much speaks for each class, `[sequences, (time,) classes]`."""
        said, single = self._answer(X)
        answer: Array = said[0] if single and self.reading == "steps" else said
        return answer

    def predict(self, X: Any) -> Array:
        """The class for which most speaks."""
        labels: Array = self.classes_[self.decision_function(X).argmax(-1)]
        return labels

    def score(self, X: Any, y: Any) -> float:
        """Share of right answers."""
        return float((self.predict(X) == np.asarray(y)).mean())
