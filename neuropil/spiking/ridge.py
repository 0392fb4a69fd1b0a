"""Linear readouts with a closed form: ridge regression at once, in parts, and one sample at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from neuropil.errors import ConfigError

Array = np.ndarray[Any, Any]


class _Readout(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """What the readouts share: a linear answer, and whether they take a constant input beside the others."""

    def predict(self, X: Any) -> Array:
        """Answers `[samples]` or `[samples, outputs]`."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        answers: Array = X @ self.coef_.T + self.intercept_
        return answers

    def _arrays(self, X: Any, y: Any, *, first: bool) -> tuple[Array, Array]:
        """Inputs with a constant behind them if wanted, and targets as a matrix."""
        X, y = validate_data(
            self, X, y, reset=first, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=1
        )
        self._flat = y.ndim == 1
        if self.fit_intercept:
            X = np.column_stack([X, np.ones(len(X))])
        return X, y.reshape(len(y), -1).astype(np.float64)

    def _settle(self, weight: Array) -> None:
        """Public coefficients from the weight `[features, outputs]`."""
        inputs = weight[:-1] if self.fit_intercept else weight
        constant = weight[-1] if self.fit_intercept else np.zeros(weight.shape[1])
        self.coef_ = inputs[:, 0].copy() if self._flat else inputs.T.copy()
        self.intercept_ = float(constant[0]) if self._flat else constant.copy()


class RidgeReadout(_Readout):
    """Ridge regression that can be fitted in parts: only the products of the inputs are kept.

    `W = (X^T X + alpha I)^-1 X^T Y`, the intercept not penalised. `partial_fit` adds samples, and gives what `fit` on
    all of them would: the readout of a reservoir whose states do not fit into memory.

    Args:
        alpha: Penalty on the squared weights, >= 0; at 0 the solution of least norm is taken.
        fit_intercept: Whether there is a constant beside the inputs.

    Raises:
        ConfigError: A negative penalty.

    >>> readout = RidgeReadout(alpha=0.0).fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
    >>> readout.predict([[10.0]]).round(6).tolist()
    [21.0]
    """

    def __init__(self, alpha: float = 1.0, *, fit_intercept: bool = True) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept

    def fit(self, X: Any, y: Any) -> RidgeReadout:
        """Learn from `[samples, features]` and `[samples]` or `[samples, outputs]`."""
        for name in ("count_", "mean_", "products_"):
            self.__dict__.pop(name, None)
        return self.partial_fit(X, y)

    def partial_fit(self, X: Any, y: Any) -> RidgeReadout:
        """Learn from some samples more."""
        if not self.alpha >= 0:
            raise ConfigError(f"RidgeReadout.alpha: got {self.alpha}, expected a number >= 0")
        first = not hasattr(self, "products_")
        X, y = validate_data(
            self, X, y, reset=first, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=1
        )
        self._flat = y.ndim == 1
        both = np.column_stack([X, y.reshape(len(y), -1)]).astype(np.float64)
        if first:
            self.count_, self.mean_ = 0, np.zeros(both.shape[1])
            self.products_ = np.zeros((both.shape[1], both.shape[1]))
        # products about the mean, updated as in Chan, Golub and LeVeque (1983): nothing large is subtracted
        mean = both.mean(0) if self.fit_intercept else np.zeros(both.shape[1])
        centred, shift = both - mean, mean - self.mean_
        total = self.count_ + len(both)
        self.products_ = (
            self.products_ + centred.T @ centred + np.outer(shift, shift) * (self.count_ * len(both) / total)
        )
        self.mean_ = self.mean_ + shift * (len(both) / total)
        self.count_ = total
        self._solve(X.shape[1])
        return self

    def _solve(self, features: int) -> None:
        inner, outer = self.products_[:features, :features], self.products_[:features, features:]
        if self.alpha > 0:
            weight = np.linalg.solve(inner + self.alpha * np.eye(features), outer)
        else:
            weight = np.linalg.lstsq(inner, outer, rcond=None)[0]
        constant = self.mean_[features:] - self.mean_[:features] @ weight
        self.coef_ = weight[:, 0].copy() if self._flat else weight.T.copy()
        self.intercept_ = float(constant[0]) if self._flat else constant


class RLSReadout(_Readout):
    """Recursive least squares: a readout that is right after every single sample.

    With `forgetting=1` the weights after any number of samples are those of ridge regression with the penalty `alpha`
    (on the constant, too, where there is one); below 1, a sample `k` steps ago counts `forgetting**k`. Haykin,
    "Adaptive Filter Theory".

    Args:
        alpha: Penalty on the squared weights, > 0.
        forgetting: In (0, 1].
        fit_intercept: Whether there is a constant beside the inputs.

    Raises:
        ConfigError: A setting is out of range.

    >>> readout = RLSReadout(alpha=1e-6)
    >>> for x in range(5):
    ...     readout = readout.partial_fit([[float(x)]], [2.0 * x + 1.0])
    >>> readout.predict([[10.0]]).round(3).tolist()
    [21.0]
    """

    def __init__(self, alpha: float = 1.0, *, forgetting: float = 1.0, fit_intercept: bool = True) -> None:
        self.alpha = alpha
        self.forgetting = forgetting
        self.fit_intercept = fit_intercept

    def fit(self, X: Any, y: Any) -> RLSReadout:
        """Learn from samples, in their order, from the beginning."""
        self.__dict__.pop("inverse_", None)
        return self.partial_fit(X, y)

    def partial_fit(self, X: Any, y: Any) -> RLSReadout:
        """Learn from some samples more, in their order."""
        if not self.alpha > 0 or not 0 < self.forgetting <= 1:
            raise ConfigError(
                f"RLSReadout: alpha={self.alpha}, forgetting={self.forgetting}; expected > 0 and in (0, 1]"
            )
        first = not hasattr(self, "inverse_")
        X, y = self._arrays(X, y, first=first)
        if first:
            self.inverse_ = np.eye(X.shape[1]) / self.alpha
            self.weight_ = np.zeros((X.shape[1], y.shape[1]))
        else:  # what was returned before stays as it was
            self.inverse_, self.weight_ = self.inverse_.copy(), self.weight_.copy()
        for x, target in zip(X, y, strict=True):
            rls_step(self.inverse_, self.weight_, x, target, self.forgetting)
        self._settle(self.weight_)
        return self


def rls_step(inverse: Array, weight: Array, x: Array, target: Array, forgetting: float = 1.0) -> Array:
    """One step of recursive least squares, in place; returns the error before it, `[outputs]`.

    `inverse` is the inverse of the penalised products of the inputs, `[features, features]`, `weight` is
    `[features, outputs]`.

    >>> inverse, weight = np.eye(1), np.zeros((1, 1))
    >>> rls_step(inverse, weight, np.array([1.0]), np.array([4.0])).tolist(), weight.tolist(), inverse.tolist()
    ([4.0], [[2.0]], [[0.5]])
    """
    filtered = inverse @ x
    gain = filtered / (forgetting + x @ filtered)
    error: Array = target - x @ weight
    weight += np.outer(gain, error)
    inverse -= np.outer(gain, filtered)
    if forgetting != 1:
        inverse /= forgetting
    return error
