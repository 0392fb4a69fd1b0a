"""One step of neurons that rest after a spike, and its gradients; equations in `neuropil.kernels.refractory`.

Rows: states membrane, waiting; parameters decay, threshold, steps.
"""

from __future__ import annotations

from typing import Any

from neuropil.kernels.compiled import kernel_part

Array = Any  # numpy arrays, as Numba sees them


@kernel_part
def refractory_membrane(x: Array, p: Array, s: Array, u: Array, h: Array) -> None:
    """Membrane before the reset and threshold of the step that starts from `s`."""
    for j in range(len(x)):
        u[j] = p[0, j] * s[0, j] + x[j]
        h[j] = p[1, j]


@kernel_part
def refractory_step(x: Array, p: Array, s: Array, zero: bool, spikes: Array) -> None:
    """Replace the states `s` by those after the step."""
    none, one = x.dtype.type(0), x.dtype.type(1)
    for j in range(len(x)):
        v, wait = s[0, j], s[1, j]
        u = p[0, j] * v + x[j]
        ready = wait <= none
        spike = one if ready and u - p[1, j] >= none else none
        after = u * (one - spike) if zero else u - p[1, j] * spike
        s[0, j] = after if ready else v
        s[1, j] = p[2, j] if spike > none else (none if wait < one else wait - one)
        spikes[j] = spike


@kernel_part
def refractory_back(
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
    """Gradient `g` of the states after the step becomes that of `s` before it; `a` is the surrogate's slope.

    `a` and `u` are written over where `g_p` is wanted.
    """
    none, one = u.dtype.type(0), u.dtype.type(1)
    for j in range(len(u)):
        ready = s[1, j] <= none
        spike = one if ready and u[j] - p[1, j] >= none else none
        through_reset = none if detach else (u[j] if zero else p[1, j]) * g[0, j]
        slope = a[j] * (g_spike[j] - through_reset) if ready else none
        g_u = slope + g[0, j] * (one - spike if zero else one) if ready else none
        g_x[j] = g_u
        if g_p is not None:  # for a loop of its own: one loop of all this does not vectorise
            a[j], u[j] = slope, none if zero else g[0, j] * spike
        g[0, j] = p[0, j] * g_u if ready else g[0, j]
        g[1, j] = none
    if g_p is not None:
        for j in range(len(u)):
            g_p[0, j] += g_x[j] * s[0, j]
            g_p[1, j] -= a[j] + u[j]
