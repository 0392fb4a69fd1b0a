"""One step of adaptive neurons and its gradients; equations in `neuropil.kernels.adaptive`.

Rows: states membrane, adaptation; parameters decay, threshold, adaptation decay, adaptation strength.
"""

from __future__ import annotations

from typing import Any

from neuropil.kernels.compiled import kernel_part

Array = Any  # numpy arrays, as Numba sees them


@kernel_part
def adaptive_step(x: Array, p: Array, s: Array, zero: bool, spikes: Array) -> None:
    """Replace the states `s` by those after the step."""
    none, one = x.dtype.type(0), x.dtype.type(1)
    for j in range(len(x)):
        u = p[0, j] * s[0, j] + x[j]
        h = p[1, j] + p[3, j] * s[1, j]
        spike = one if u - h >= none else none
        s[0, j] = u * (one - spike) if zero else u - h * spike
        s[1, j] = p[2, j] * s[1, j] + spike
        spikes[j] = spike


@kernel_part
def adaptive_membrane(x: Array, p: Array, s: Array, u: Array, h: Array) -> None:
    """Membrane before the reset and threshold of the step that starts from `s`."""
    for j in range(len(x)):
        u[j] = p[0, j] * s[0, j] + x[j]
        h[j] = p[1, j] + p[3, j] * s[1, j]


@kernel_part
def adaptive_back(
    p: Array,
    s: Array,
    u: Array,
    g_spike: Array,
    zero: bool,
    detach: bool,
    a: Array,
    g: Array,
    g_p: Array | None,
    g_x: Array,
) -> None:
    """Gradient `g` of the states after the step becomes that of `s` before it; `a` is the surrogate's slope."""
    none, one = u.dtype.type(0), u.dtype.type(1)
    for j in range(len(u)):
        h = p[1, j] + p[3, j] * s[1, j]
        spike = one if u[j] - h >= none else none
        through_reset = none if detach else (u[j] if zero else h) * g[0, j]
        slope = a[j] * (g_spike[j] + g[1, j] - through_reset)
        g_u = slope + g[0, j] * (one - spike if zero else one)
        g_h = -slope - (none if zero else g[0, j] * spike)
        g_x[j] = g_u
        if g_p is not None:
            g_p[0, j] += g_u * s[0, j]
            g_p[1, j] += g_h
            g_p[2, j] += g[1, j] * s[1, j]
            g_p[3, j] += g_h * s[1, j]
        g[0, j] = p[0, j] * g_u
        g[1, j] = p[2, j] * g[1, j] + p[3, j] * g_h
