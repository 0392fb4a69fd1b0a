"""One step of resonators and its gradients; equations in `neuropil.kernels.resonator`.

Rows: states current, membrane; parameters cosine, sine, reset, threshold.
"""

from __future__ import annotations

from typing import Any

from neuropil.kernels.compiled import kernel_part

Array = Any  # numpy arrays, as Numba sees them


@kernel_part
def resonator_membrane(x: Array, p: Array, s: Array, u: Array, h: Array) -> None:
    """Membrane before the reset and threshold of the step that starts from `s`."""
    for j in range(len(x)):
        u[j] = p[1, j] * (s[0, j] + x[j]) + p[0, j] * s[1, j]
        h[j] = p[3, j]


@kernel_part
def resonator_step(x: Array, p: Array, s: Array, spikes: Array) -> None:
    """Replace the states `s` by those after the step."""
    none, one = x.dtype.type(0), x.dtype.type(1)
    for j in range(len(x)):
        real, v = s[0, j] + x[j], s[1, j]
        turned = p[0, j] * real - p[1, j] * v
        u = p[1, j] * real + p[0, j] * v
        spike = one if u - p[3, j] >= none else none
        s[0, j] = turned * (one - spike)
        s[1, j] = u * (one - spike) + p[2, j] * spike
        spikes[j] = spike


@kernel_part
def resonator_back(
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
    for j in range(len(u)):
        real, v = s[0, j] + x[j], s[1, j]
        turned = p[0, j] * real - p[1, j] * v
        spike = one if u[j] - p[3, j] >= none else none
        through_reset = none if detach else g[1, j] * (p[2, j] - u[j]) - g[0, j] * turned
        slope = a[j] * (g_spike[j] + through_reset)
        g_u = slope + g[1, j] * (one - spike)
        g_turned = g[0, j] * (one - spike)
        if g_p is not None:
            g_p[0, j] += g_turned * real + g_u * v
            g_p[1, j] += g_u * real - g_turned * v
            g_p[2, j] += g[1, j] * spike
            g_p[3, j] -= slope
        g_x[j] = p[0, j] * g_turned + p[1, j] * g_u
        g[0, j] = g_x[j]
        g[1, j] = p[0, j] * g_u - p[1, j] * g_turned
