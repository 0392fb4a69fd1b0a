"""Liquids of integrate-and-fire neurons whose plasticity an astrocyte paces: images as spikes, one after the other.

Steps are milliseconds. Per step, with what fired in the step before (inputs and liquid), inside each image:

    c_i = exp(-1 / tau_u) c_i + sum_j w_ij s_j / tau_u        synaptic current
    v_i = v_i - v_i / tau_v + c_i                             s_i = 1 and v_i = 0 at the threshold unless refractory
    w_ij = clip(w_ij + A+ s_i x_j - A s_j x_i)                source j excitatory or an input
    w_ij = clip(w_ij - A s_i x_j + A+ s_j x_i)                source j inhibitory
    x = exp(-1 / tau_x) (x + s / tau_x)                       traces, of earlier spikes where the rule reads them
    A = A + (w_a (sum of s in the liquid - sum of s in the input) + b - A) / tau_a

A refractory neuron goes on adding up what arrives, it only does not fire; an input that is hit meanwhile fires right
afterwards, so that none fires more often than once in `refractory + 1` milliseconds.

With `w_a = 0` the astrocyte rests at `b` and the rule is plain STDP of pairs. Weights and traces pass from image to
image; membranes, currents and the astrocyte start anew. Ivanov and Michmizos (2021), "Increasing liquid state machine
performance with edge-of-chaos dynamics organized by astrocyte-modulated plasticity".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from neuropil.errors import ShapeError
from neuropil.kernels.astrocyte_liquid_compiled import astrocyte_liquid_run
from neuropil.kernels.compiled import HAS_NUMBA

Array = np.ndarray[Any, Any]


class AstrocyteNumbers(NamedTuple):
    """Constants of neurons, plasticity and astrocyte."""

    leak_time: float = 64.0  # tau_v, milliseconds
    threshold: float = 20.0
    refractory: float = 2.0  # whole milliseconds
    current_time: float = 1.0  # tau_u, milliseconds
    trace_time: float = 10.0  # tau_x, milliseconds
    potentiation: float = 0.15  # A+
    depression: float = 0.15  # b, where the astrocyte rests
    astrocyte_weight: float = 0.0  # w_a
    astrocyte_time: float = 100.0  # tau_a, milliseconds


class LiquidWiring(NamedTuple):
    """Synapses, those of one source after the other; sources are inputs, then units."""

    offsets: Array  # [sources + 1], where the synapses of each source begin
    targets: Array  # [synapses], units
    inhibits: Array  # [sources], whether it inhibits
    low: Array  # [sources], smallest weight
    high: Array  # [sources], largest weight


class AstrocyteRun(NamedTuple):
    """What a run gives."""

    spikes: Array  # [images, time, units], 0 or 1
    weight: Array  # [synapses] afterwards
    trace: Array  # [sources] afterwards
    astrocyte: Array  # [images, time]


def astrocyte_liquid_scan(
    x: Array,
    wiring: LiquidWiring,
    weight: Array,
    trace: Array,
    units: int,
    numbers: AstrocyteNumbers = AstrocyteNumbers(),  # noqa: B008  immutable
    *,
    learns: bool = True,
) -> AstrocyteRun:
    """Spikes of all images and what is left behind; see the module for the equations.

    `x` says when an input is hit, `[images, time, inputs]`, 0 or 1; `weight` is `[synapses]` and `trace`
    `[inputs + units]`, neither is changed. Raises ShapeError when the arguments do not fit together.

    >>> sources = np.zeros(2)  # one input that excites one unit strongly
    >>> wiring = LiquidWiring(np.array([0, 1, 1]), np.array([0]), sources.astype(bool), sources, sources + 25)
    >>> x = np.ones((1, 6, 1), np.uint8)
    >>> run = astrocyte_liquid_scan(x, wiring, np.array([20.0]), sources, 1, learns=False)
    >>> run.spikes[0, :, 0].tolist()  # a spike takes a millisecond, and two are refractory
    [0, 1, 0, 0, 1, 0]
    """
    _check(x, wiring, weight, trace, units)
    if not HAS_NUMBA:
        return astrocyte_liquid_reference(x, wiring, weight, trace, units, numbers, learns=learns)
    order = np.argsort(wiring.targets, kind="stable")
    sources = np.repeat(np.arange(len(trace)), np.diff(wiring.offsets))[order]
    arrivals = np.concatenate([[0], np.cumsum(np.bincount(wiring.targets, minlength=units))])
    spikes, levels = np.zeros((*x.shape[:2], units), np.uint8), np.zeros(x.shape[:2])
    after, left = weight.astype(np.float64), trace.astype(np.float64)  # copies
    astrocyte_liquid_run(
        np.ascontiguousarray(x, np.uint8), wiring.offsets, wiring.targets, arrivals, order, sources,
        wiring.inhibits, wiring.low, wiring.high, after, left, np.array(numbers, np.float64), learns, spikes,
        levels,
    )  # fmt: skip
    return AstrocyteRun(spikes, after, left, levels)


def astrocyte_liquid_reference(
    x: Array,
    wiring: LiquidWiring,
    weight: Array,
    trace: Array,
    units: int,
    numbers: AstrocyteNumbers = AstrocyteNumbers(),  # noqa: B008  immutable
    *,
    learns: bool = True,
) -> AstrocyteRun:
    """`astrocyte_liquid_scan` as the equations read, over all synapses at once.

    >>> none = np.zeros(2)
    >>> wiring = LiquidWiring(np.array([0, 1, 1]), np.array([0]), none.astype(bool), none, none + 25)
    >>> astrocyte_liquid_reference(np.zeros((1, 3, 1)), wiring, none[:1], none, 1).astrocyte.tolist()
    [[0.15, 0.15, 0.15]]
    """
    n, (images, steps, inputs) = numbers, x.shape
    j, i = np.repeat(np.arange(len(trace)), np.diff(wiring.offsets)), inputs + wiring.targets
    w, trace = weight.astype(np.float64), trace.astype(np.float64)
    x = _relayed(x, int(n.refractory))
    spikes, levels = np.zeros((images, steps, units), np.uint8), np.full((images, steps), n.depression)
    for image in range(images):
        v, current, wait, s = np.zeros(units), np.zeros(units), np.zeros(units), np.zeros(len(trace))
        level = n.depression
        for t in range(steps):
            arrived = np.bincount(wiring.targets, w * s[j], units)
            current = np.exp(-1 / n.current_time) * current + arrived / n.current_time
            v = v - v / n.leak_time + current
            fired = (wait == 0) & (v >= n.threshold)
            wait = np.where(fired, n.refractory, np.maximum(wait - 1, 0))
            v = np.where(fired, 0.0, v)
            s = np.concatenate([x[image, t], fired]).astype(np.float64)
            spikes[image, t] = fired
            if learns:
                up, down = n.potentiation, level
                excites = up * s[i] * trace[j] - down * s[j] * trace[i]
                inhibits = -down * s[i] * trace[j] + up * s[j] * trace[i]
                w = w + np.where(wiring.inhibits[j], inhibits, excites)
                w = np.clip(w, wiring.low[j], wiring.high[j])
                trace = np.exp(-1 / n.trace_time) * (trace + s / n.trace_time)
                more = n.astrocyte_weight * (s[inputs:].sum() - s[:inputs].sum())
                level += (more + n.depression - level) / n.astrocyte_time
            levels[image, t] = level
    return AstrocyteRun(spikes, w, trace, levels)


def _relayed(hits: Array, refractory: int) -> Array:
    """Spikes of inputs that are hit: at once, or as soon as they are not refractory."""
    spikes, images, inputs = np.zeros_like(hits), hits.shape[0], hits.shape[2]
    pending, last = np.zeros((images, inputs), bool), np.full((images, inputs), -refractory - 1)
    for t in range(hits.shape[1]):
        pending |= hits[:, t] > 0
        fired = pending & (t - last > refractory)
        spikes[:, t] = fired
        last = np.where(fired, t, last)
        pending &= ~fired
    return spikes


def _check(x: Array, wiring: LiquidWiring, weight: Array, trace: Array, units: int) -> None:
    if x.ndim != 3:
        raise ShapeError(
            f"astrocyte_liquid_scan: x has shape {list(x.shape)}, expected [images, time, inputs]"
        )
    sources = x.shape[2] + units
    found = {"trace": len(trace), "inhibits": len(wiring.inhibits), "low": len(wiring.low)}
    found |= {"high": len(wiring.high), "offsets": len(wiring.offsets) - 1}
    for name, length in found.items():
        if length != sources:
            raise ShapeError(f"astrocyte_liquid_scan: {name} is for {length} sources, expected {sources}")
    if len(weight) != len(wiring.targets) or wiring.offsets[-1] != len(weight):
        raise ShapeError(
            f"astrocyte_liquid_scan: {len(weight)} weights, expected one for each of {len(wiring.targets)} synapses"
        )
