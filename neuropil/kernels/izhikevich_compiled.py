"""One step of Izhikevich neurons and its gradients; equations in `neuropil.kernels.izhikevich`.

Rows: states membrane, recovery; parameters a, b, c, d, threshold, dt.
"""

from __future__ import annotations

from typing import Any

from neuropil.kernels.compiled import kernel_part

Array = Any  # numpy arrays, as Numba sees them


@kernel_part
def izhikevich_step(x: Array, p: Array, s: Array, spikes: Array) -> None:
    """Replace the states `s` by those after the step."""
    none, one = x.dtype.type(0), x.dtype.type(1)
    square, linear, constant = x.dtype.type(0.04), x.dtype.type(5), x.dtype.type(140)
    for j in range(len(x)):
        v, w = s[0, j], s[1, j]
        u = v + p[5, j] * (square * v * v + linear * v + constant - w + x[j])
        recovery = w + p[5, j] * (p[0, j] * (p[1, j] * v - w))
        spike = one if u - p[4, j] >= none else none
        s[0, j] = u * (one - spike) + p[2, j] * spike
        s[1, j] = recovery + p[3, j] * spike
        spikes[j] = spike


@kernel_part
def izhikevich_membrane(x: Array, p: Array, s: Array, u: Array, h: Array) -> None:
    """Membrane before the reset and threshold of the step that starts from `s`."""
    square, linear, constant = x.dtype.type(0.04), x.dtype.type(5), x.dtype.type(140)
    for j in range(len(x)):
        v, w = s[0, j], s[1, j]
        u[j] = v + p[5, j] * (square * v * v + linear * v + constant - w + x[j])
        h[j] = p[4, j]


@kernel_part
def izhikevich_back(
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
    square, linear, constant = x.dtype.type(0.04), x.dtype.type(5), x.dtype.type(140)
    for j in range(len(u)):
        v, w, dt = s[0, j], s[1, j], p[5, j]
        spike = one if u[j] - p[4, j] >= none else none
        through_reset = none if detach else g[0, j] * (p[2, j] - u[j]) + g[1, j] * p[3, j]
        slope = a[j] * (g_spike[j] + through_reset)
        g_u, g_w = slope + g[0, j] * (one - spike), g[1, j]
        pull = p[1, j] * v - w
        g_x[j] = dt * g_u
        if g_p is not None:
            g_p[0, j] += g_w * dt * pull
            g_p[1, j] += g_w * dt * p[0, j] * v
            g_p[2, j] += g[0, j] * spike
            g_p[3, j] += g_w * spike
            g_p[4, j] -= slope
            g_p[5, j] += g_u * (square * v * v + linear * v + constant - w + x[j]) + g_w * p[0, j] * pull
        g[0, j] = g_u * (one + dt * (square * v + square * v + linear)) + g_w * dt * p[0, j] * p[1, j]
        g[1, j] = g_w * (one - dt * p[0, j]) - dt * g_u
