"""One step of quadratic neurons and its gradients; equations in `neuropil.kernels.quadratic`.

Rows: state membrane; parameters pace, rest, critical, sharpness, reset, threshold.
"""

from __future__ import annotations

from typing import Any

from neuropil.kernels.compiled import kernel_part

Array = Any  # numpy arrays, as Numba sees them


@kernel_part
def quadratic_membrane(x: Array, p: Array, s: Array, u: Array, h: Array) -> None:
    """Membrane before the reset and threshold of the step that starts from `s`."""
    for j in range(len(x)):
        v = s[0, j]
        c = v if v < p[5, j] else p[5, j]
        u[j] = v + p[0, j] * (p[3, j] * (c - p[1, j]) * (c - p[2, j]) + x[j])
        h[j] = p[5, j]


@kernel_part
def quadratic_step(x: Array, p: Array, s: Array, spikes: Array) -> None:
    """Replace the state `s` by that after the step."""
    none, one = x.dtype.type(0), x.dtype.type(1)
    for j in range(len(x)):
        v = s[0, j]
        c = v if v < p[5, j] else p[5, j]
        u = v + p[0, j] * (p[3, j] * (c - p[1, j]) * (c - p[2, j]) + x[j])
        spike = one if u - p[5, j] >= none else none
        s[0, j] = u * (one - spike) + p[4, j] * spike
        spikes[j] = spike


@kernel_part
def quadratic_back(
    x: Array,
    p: Array,
    s: Array,
    u: Array,
    g_spike: Array,
    detach: bool,
    a: Array,
    g: Array,
    g_p: Array | None,
    g_x: Array,
) -> None:
    """Gradient `g` of the state after the step becomes that of `s` before it; `a` is the surrogate's slope."""
    none, one = u.dtype.type(0), u.dtype.type(1)
    for j in range(len(u)):
        v, pace = s[0, j], p[0, j]
        below = v < p[5, j]
        c = v if below else p[5, j]
        low, high = c - p[1, j], c - p[2, j]
        spike = one if u[j] - p[5, j] >= none else none
        through_reset = none if detach else g[0, j] * (p[4, j] - u[j])
        slope = a[j] * (g_spike[j] + through_reset)
        g_u = slope + g[0, j] * (one - spike)
        through_cut = g_u * pace * p[3, j] * (low + high)
        g_x[j] = pace * g_u
        if g_p is not None:
            g_p[0, j] += g_u * (p[3, j] * low * high + x[j])
            g_p[1, j] -= g_u * pace * p[3, j] * high
            g_p[2, j] -= g_u * pace * p[3, j] * low
            g_p[3, j] += g_u * pace * low * high
            g_p[4, j] += g[0, j] * spike
            g_p[5, j] += (none if below else through_cut) - slope
        g[0, j] = g_u + (through_cut if below else none)
