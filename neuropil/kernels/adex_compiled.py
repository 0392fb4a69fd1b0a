"""One step of AdEx neurons and its gradients; equations in `neuropil.kernels.adex`.

Rows: states membrane, adaptation; parameters pace, leak, rest, rheobase, slope, a, b, adaptation pace, reset,
threshold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel_part
from neuropil.kernels.surrogate_compiled import exp32, exp64

Array = Any  # numpy arrays, as Numba sees them


@kernel_part
def exp_row(p: Array, s: Array, e: Array) -> None:
    """`e`, what makes the upstroke of the step that starts from `s`; no larger than exp(80)."""
    if e.itemsize == 4:
        for j in range(len(e)):
            v = s[0, j] if s[0, j] < p[9, j] else p[9, j]
            z = (v - p[3, j]) / p[4, j]
            e[j] = exp32(z if z < np.float32(80) else np.float32(80))
    else:
        for j in range(len(e)):
            v = s[0, j] if s[0, j] < p[9, j] else p[9, j]
            z = (v - p[3, j]) / p[4, j]
            e[j] = exp64(z if z < 80.0 else 80.0)


@kernel_part
def adex_membrane(x: Array, p: Array, s: Array, u: Array, h: Array) -> None:
    """Membrane before the reset and threshold of the step that starts from `s`."""
    exp_row(p, s, u)
    for j in range(len(x)):
        v, w = s[0, j], s[1, j]
        u[j] = v + p[0, j] * (p[1, j] * (p[4, j] * u[j] - (v - p[2, j])) - w + x[j])
        h[j] = p[9, j]


@kernel_part
def adex_step(x: Array, p: Array, s: Array, spikes: Array) -> None:
    """Replace the states `s` by those after the step."""
    none, one = x.dtype.type(0), x.dtype.type(1)
    exp_row(p, s, spikes)
    for j in range(len(x)):
        v, w = s[0, j], s[1, j]
        above = v - p[2, j]
        u = v + p[0, j] * (p[1, j] * (p[4, j] * spikes[j] - above) - w + x[j])
        spike = one if u - p[9, j] >= none else none
        s[0, j] = u * (one - spike) + p[8, j] * spike
        s[1, j] = w + p[7, j] * (p[5, j] * above - w) + p[6, j] * spike
        spikes[j] = spike


@kernel_part
def adex_back(
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
    """Gradient `g` of the states after the step becomes that of `s` before it; `a` is the surrogate's slope."""
    none, one = u.dtype.type(0), u.dtype.type(1)
    exp_row(p, s, g_x)
    for j in range(len(u)):
        v, w, e = s[0, j], s[1, j], g_x[j]
        pace, leak, above = p[0, j], p[1, j], v - p[2, j]
        below = v < p[9, j]
        z = ((v if below else p[9, j]) - p[3, j]) / p[4, j]
        spike = one if u[j] - p[9, j] >= none else none
        through_reset = none if detach else g[0, j] * (p[8, j] - u[j]) + g[1, j] * p[6, j]
        slope = a[j] * (g_spike[j] + through_reset)
        g_u, g_w = slope + g[0, j] * (one - spike), g[1, j]
        pull = leak * (p[4, j] * e - above)
        through_cut = g_u * pace * leak * e
        if g_p is not None:
            g_p[0, j] += g_u * (pull - w + x[j])
            g_p[1, j] += g_u * pace * (p[4, j] * e - above)
            g_p[2, j] += g_u * pace * leak - g_w * p[7, j] * p[5, j]
            g_p[3, j] -= through_cut
            g_p[4, j] += through_cut * (one - z)
            g_p[5, j] += g_w * p[7, j] * above
            g_p[6, j] += g_w * spike
            g_p[7, j] += g_w * (p[5, j] * above - w)
            g_p[8, j] += g[0, j] * spike
            g_p[9, j] += (none if below else through_cut) - slope
        g_x[j] = pace * g_u
        g[0, j] = g_u * (one - pace * leak) + (through_cut if below else none) + g_w * p[7, j] * p[5, j]
        g[1, j] = g_w * (one - p[7, j]) - pace * g_u
