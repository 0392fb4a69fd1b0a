"""What analyses are given, as numpy arrays of finite numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuropil.errors import ConfigError, DataError, NonFiniteError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def finite_array(caller: str, name: str, values: ArrayLike, dims: tuple[int, ...]) -> NDArray[np.float64]:
    """`values` in double precision; refused unless they are finite, not empty, and of `dims` dimensions.

    >>> finite_array("f", "x", [1, 2], (1,)).tolist()
    [1.0, 2.0]
    """
    given: Any = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
    try:
        array = np.array(given, np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"{caller}: {name} is a {type(values).__name__}, expected an array of numbers"
        ) from None
    if array.ndim not in dims:
        expected = " or ".join(map(str, dims))
        raise ShapeError(f"{caller}: {name} has shape {list(array.shape)}, expected {expected} dimensions")
    if not array.size:
        raise DataError(f"{caller}: {name} is empty, shape {list(array.shape)}")
    if not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise NonFiniteError(f"{caller}: {bad} of {array.size} values of {name} are NaN or infinite")
    return array


def counts_array(caller: str, name: str, values: ArrayLike, dims: tuple[int, ...]) -> NDArray[np.float64]:
    """`finite_array` of numbers that are not negative."""
    array = finite_array(caller, name, values, dims)
    if (array < 0).any():
        raise DataError(f"{caller}: {name} goes down to {array.min():.4g}, expected counts >= 0")
    return array


def check_whole(caller: str, name: str, value: int, low: int, high: int | None = None) -> None:
    """Refuse a setting that is not a whole number from `low` to `high`.

    >>> check_whole("f", "steps", 3, 1)
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        span = f"of {low} or more" if high is None else f"from {low} to {high}"
        raise ConfigError(f"{caller}: {name}={value!r}, expected a whole number {span}")
