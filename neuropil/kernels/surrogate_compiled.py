"""Derivatives of the surrogates, a row of membranes at a time; formulas as in `neuropil.nn.surrogate`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from neuropil.kernels.compiled import Kernel, kernel_part, smooth_part

Array = Any  # numpy arrays, as Numba sees them

KINDS = {"sigmoid": 0, "arctan": 1, "fast_sigmoid": 2, "triangle": 3, "straight_through": 4}

_LOG2_E = 1 / math.log(2)


@smooth_part
def exp32(z: Any) -> Any:
    """`exp(z)` for `z <= 0` in single precision, without a branch, so that a loop of it vectorises.

    `exp(z) = 2**n * exp(r)`, `|r| <= log(2) / 2`: the Taylor polynomial's error is 5e-9, `2**n` is built from
    its bits. Adding 1.5 * 2**23 rounds to the nearest integer and leaves it in the low bits.
    """
    z = np.float32(z)
    z = np.float32(-87) if z < np.float32(-87) else z
    shifted = z * np.float32(_LOG2_E) + np.float32(12582912.0)
    n = shifted - np.float32(12582912.0)
    r = z - n * np.float32(0.693359375) + n * np.float32(2.1219444e-4)  # log(2) in two parts, the first exact
    p = np.float32(1 / 5040)
    p = p * r + np.float32(1 / 720)
    p = p * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(0.5)
    p = p * r + np.float32(1)
    p = p * r + np.float32(1)
    bits = (np.float32(shifted).view(np.int32) << np.int32(23)) + np.int32(0x3F800000)
    return p * np.int32(bits).view(np.float32)


@smooth_part
def exp64(z: Any) -> Any:
    """`exp(z)` for `z <= 0` in double precision, like `exp32`; the polynomial's error is 4e-18."""
    z = np.float64(z)
    z = -708.0 if z < -708.0 else z
    shifted = z * _LOG2_E + 6755399441055744.0
    n = shifted - 6755399441055744.0
    r = z - n * 6.93147180369123816490e-01 - n * 1.90821492927058770002e-10
    p = 1 / 6227020800
    p = p * r + 1 / 479001600
    p = p * r + 1 / 39916800
    p = p * r + 1 / 3628800
    p = p * r + 1 / 362880
    p = p * r + 1 / 40320
    p = p * r + 1 / 5040
    p = p * r + 1 / 720
    p = p * r + 1 / 120
    p = p * r + 1 / 24
    p = p * r + 1 / 6
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    bits = (np.float64(shifted).view(np.int64) << np.int64(52)) + np.int64(0x3FF0000000000000)
    return p * np.int64(bits).view(np.float64)


@smooth_part
def sigmoid(slope: float, u: Array, h: Array, j: int) -> Any:
    """`slope * e / (1 + e)**2` with `e = exp(-slope * |u - h|)`: no cancellation far from the threshold."""
    one = u.dtype.type(1)
    z = -slope * abs(u[j] - h[j])
    e = u.dtype.type(exp32(z)) if u.itemsize == 4 else u.dtype.type(exp64(z))
    return slope * e / ((one + e) * (one + e))


@smooth_part
def arctan(slope: float, u: Array, h: Array, j: int) -> Any:
    """`(slope / 2) / (1 + (pi / 2 * slope * (u - h))**2)`."""
    half = u.dtype.type(0.5) * slope
    z = u.dtype.type(math.pi) * half * (u[j] - h[j])
    return half / (u.dtype.type(1) + z * z)


@smooth_part
def fast_sigmoid(slope: float, u: Array, h: Array, j: int) -> Any:
    """`1 / (1 + slope * |u - h|)**2`."""
    z = u.dtype.type(1) + slope * abs(u[j] - h[j])
    return u.dtype.type(1) / (z * z)


@smooth_part
def triangle(width: float, u: Array, h: Array, j: int) -> Any:
    """`max(0, 1 - |u - h| / width) / width`."""
    none = u.dtype.type(0)
    z = u.dtype.type(1) - abs(u[j] - h[j]) / width
    return (none if z < none else z) / width


@smooth_part
def straight_through(width: float, u: Array, h: Array, j: int) -> Any:
    """`1[|u - h| <= width / 2]`."""
    near = abs(u[j] - h[j]) <= u.dtype.type(0.5) * width
    return u.dtype.type(1) if near else u.dtype.type(0)


def rows_of(derivative: Kernel) -> tuple[Kernel, Kernel]:
    """The two loops that kernels need of a derivative: a row of it, and a row of gradients that passes through it."""

    @kernel_part
    def row(scale: float, u: Array, h: Array, out: Array) -> None:
        for j in range(len(out)):
            out[j] = derivative(scale, u, h, j)

    @kernel_part
    def through_row(
        scale: float, u: Array, h: Array, g_spike: Array, d: Array, g_v: Array, g_x: Array
    ) -> None:
        for j in range(len(g_x)):
            g_x[j] = derivative(scale, u, h, j) * g_spike[j] + g_v[j]
            g_v[j] = d[j] * g_x[j]

    return row, through_row


sigmoid_row, sigmoid_through = rows_of(sigmoid)
arctan_row, arctan_through = rows_of(arctan)
fast_sigmoid_row, fast_sigmoid_through = rows_of(fast_sigmoid)
triangle_row, triangle_through = rows_of(triangle)
straight_through_row, straight_through_through = rows_of(straight_through)


@kernel_part
def derivative_row(kind: int, scale: float, u: Array, h: Array, out: Array) -> None:
    """The derivative numbered `kind` in KINDS, at membranes `u` with thresholds `h`."""
    if kind == 0:
        sigmoid_row(scale, u, h, out)
    elif kind == 1:
        arctan_row(scale, u, h, out)
    elif kind == 2:
        fast_sigmoid_row(scale, u, h, out)
    elif kind == 3:
        triangle_row(scale, u, h, out)
    else:
        straight_through_row(scale, u, h, out)


@kernel_part
def spike_gradient_row(
    kind: int, scale: float, u: Array, h: Array, g_spike: Array, d: Array, g_v: Array, g_x: Array
) -> None:
    """`g_x = derivative * g_spike + g_v` and `g_v = d * g_x`: one step back where the reset passes no gradient."""
    if kind == 0:
        sigmoid_through(scale, u, h, g_spike, d, g_v, g_x)
    elif kind == 1:
        arctan_through(scale, u, h, g_spike, d, g_v, g_x)
    elif kind == 2:
        fast_sigmoid_through(scale, u, h, g_spike, d, g_v, g_x)
    elif kind == 3:
        triangle_through(scale, u, h, g_spike, d, g_v, g_x)
    else:
        straight_through_through(scale, u, h, g_spike, d, g_v, g_x)
