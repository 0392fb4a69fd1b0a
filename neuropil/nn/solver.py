"""One step of a system of differential equations, by explicit methods of a stated order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

Method = Literal["euler", "heun", "rk4"]
ORDERS: dict[Method, int] = {"euler": 1, "heun": 2, "rk4": 4}

Values = tuple[Tensor, ...]


def advance(
    slope: Callable[..., Sequence[Tensor]], state: Sequence[Tensor], dt: Tensor | float, method: Method
) -> Values:
    """`state` one step of `dt` later, where `slope(*state)` is its derivative; the error over a time is `dt**order`.

    `"euler"` is of order 1 (one slope a step), `"heun"` of order 2 (two), `"rk4"`, the classical Runge-Kutta method,
    of order 4 (four).

    >>> import torch
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> [round(advance(lambda v: (-v,), (one,), 0.1, method)[0].item(), 7) for method in ORDERS]  # exp(-0.1)
    [0.9, 0.905, 0.9048375]
    """
    first = slope(*state)
    if method == "euler":
        return _along(state, first, dt)
    if method == "heun":
        second = slope(*_along(state, first, dt))
        return _along(state, [a + b for a, b in zip(first, second, strict=True)], dt / 2)
    second = slope(*_along(state, first, dt / 2))
    third = slope(*_along(state, second, dt / 2))
    fourth = slope(*_along(state, third, dt))
    mean = [a + 2 * (b + c) + d for a, b, c, d in zip(first, second, third, fourth, strict=True)]
    return _along(state, mean, dt / 6)


def _along(state: Sequence[Tensor], slopes: Sequence[Tensor], dt: Tensor | float) -> Values:
    return tuple(value + dt * slope for value, slope in zip(state, slopes, strict=True))
