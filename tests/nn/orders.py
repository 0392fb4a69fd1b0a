"""How fast an error falls when the step is halved."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch


def measured_orders(value: Callable[[float], float], exact: float, steps: Sequence[float]) -> list[float]:
    """Orders of convergence of `value(dt)` to `exact` between neighbouring `steps`."""
    errors = [abs(value(dt) - exact) for dt in steps]
    return [
        math.log(big / small) / math.log(steps[k] / steps[k + 1])
        for k, (big, small) in enumerate(itertools.pairwise(errors))
    ]


def exact_solution(slope: Callable, start: Sequence[float], end: float) -> np.ndarray:
    """State at the time `end` of `state' = slope(t, state)`, to eleven digits."""
    from scipy.integrate import solve_ivp

    return solve_ivp(slope, (0, end), start, rtol=1e-12, atol=1e-12, method="DOP853").y[:, -1]


def held(value: float, steps: int) -> torch.Tensor:
    """A constant input to one neuron, in double precision."""
    return torch.full((steps, 1, 1), value, dtype=torch.float64)


def exactly(kind: Callable, *args: object, **options: object) -> torch.nn.Module:
    """A cell whose numbers are kept in double precision from the start."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return kind(*args, **options)
    finally:
        torch.set_default_dtype(before)
