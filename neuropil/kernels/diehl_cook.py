"""One presentation to a Diehl-Cook network: excitatory neurons that learn by triplet STDP and silence each other.

Milliseconds and millivolts, conductances in units of the leak. Per step of `dt`, in this order:

    input i fires:   g_e += w[i];  w[i] += sign * rate_pre * post_1;  pre[i] = 1
    excitatory:      v -> v_inf + (v - v_inf) exp(-dt g / tau),  g = 1 + g_e + g_i,  v_inf = (v_rest + g_i E_i) / g
                     fires where v > threshold - 20 + theta, then v = v_reset for 5 ms and theta += theta_plus
    j fires:         w[:, j] += rate_post * pre * post_2[j];  post_1[j] = post_2[j] = 1
    inhibitory:      the same step, excited by its one excitatory neuron; when it fires, g_i of all others grows
    everything that decays decays; weights stay in [0, 1]

The exact step for held conductances never overshoots, however many neurons inhibit at once; forward Euler does. Diehl
and Cook (2015), "Unsupervised learning of digit recognition using spike-timing-dependent plasticity".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neuropil.kernels.compiled import HAS_NUMBA
from neuropil.kernels.diehl_cook_compiled import present_compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP = 0.5  # milliseconds
REST, RESET, THRESHOLD, OFFSET = -65.0, -65.0, -52.0, 20.0
INHIBITORY_REVERSAL = -100.0
EXCITATORY_TIME, REFRACTORY = 100.0, 10  # milliseconds, steps
I_REST, I_RESET, I_THRESHOLD, I_TIME, I_REFRACTORY = -60.0, -45.0, -40.0, 10.0, 4
TO_INHIBITORY, TO_EXCITATORY = 10.4, 17.0
GE_TIME, GI_TIME = 1.0, 0.5
PRE_TIME, POST_1_TIME, POST_2_TIME, THETA_TIME = 20.0, 20.0, 40.0, 1e7


class Plasticity(NamedTuple):
    """What a presentation leaves behind; all zero: nothing."""

    pre: float = 0.0  # rate of the change at a presynaptic spike, with its sign
    post: float = 0.0  # rate of the change at a postsynaptic spike
    theta: float = 0.0  # growth of a threshold at each of its spikes, millivolts


def present(
    offsets: NDArray[np.int64],
    inputs: NDArray[np.int64],
    weight: NDArray[np.float64],
    theta: NDArray[np.float64],
    plasticity: Plasticity,
) -> NDArray[np.int64]:
    """Spikes of each excitatory neuron during one presentation, from rest; `weight` and `theta` are brought up to date.

    Inputs `inputs[offsets[t] : offsets[t + 1]]` fire in step `t`; `weight` is `[inputs, neurons]`.

    >>> weight, theta = np.array([[1.0, 0.0]] * 50), np.full(2, 20.0)
    >>> every = np.tile(np.arange(50), 40)
    >>> counts = present(np.arange(0, 2001, 50), every, weight, theta, Plasticity())
    >>> bool(counts[0] > 0), int(counts[1])
    (True, 0)
    """
    counts = np.zeros(weight.shape[1], np.int64)
    run = present_compiled if HAS_NUMBA else present_reference
    run(offsets, inputs, weight, theta, *plasticity, counts)
    return counts


def present_reference(
    offsets: Any,
    inputs: Any,
    weight: Any,
    theta: Any,
    rate_pre: float,
    rate_post: float,
    growth: float,
    counts: Any,
) -> None:
    """`present_compiled` in numpy: the definition that the compiled loop is held against."""
    units, steps = weight.shape[1], len(offsets) - 1
    v, ge, gi, wait = np.full(units, REST), np.zeros(units), np.zeros(units), np.zeros(units, int)
    vi, gie, wait_i = np.full(units, I_REST), np.zeros(units), np.zeros(units, int)
    pre, post_1, post_2 = np.zeros(len(weight)), np.zeros(units), np.zeros(units)
    for t in range(steps):
        for i in inputs[offsets[t] : offsets[t + 1]]:
            ge += weight[i]
            weight[i] = np.clip(weight[i] + rate_pre * post_1, 0, 1)
            pre[i] = 1
        g = 1 + ge + gi
        settled = (REST + gi * INHIBITORY_REVERSAL) / g
        moved = settled + (v - settled) * np.exp(-STEP * g / EXCITATORY_TIME)
        v = np.where(wait > 0, v, moved)
        fired = (wait == 0) & (v > THRESHOLD - OFFSET + theta)
        wait = np.where(fired, REFRACTORY, np.maximum(wait - 1, 0))
        v[fired] = RESET
        theta[fired] += growth
        counts += fired
        weight[:, fired] = np.clip(weight[:, fired] + rate_post * pre[:, None] * post_2[fired], 0, 1)
        post_1[fired] = post_2[fired] = 1
        gie[fired] += TO_INHIBITORY
        g = 1 + gie
        moved = I_REST / g + (vi - I_REST / g) * np.exp(-STEP * g / I_TIME)
        vi = np.where(wait_i > 0, vi, moved)
        silences = (wait_i == 0) & (vi > I_THRESHOLD)
        wait_i = np.where(silences, I_REFRACTORY, np.maximum(wait_i - 1, 0))
        vi[silences] = I_RESET
        ge *= np.exp(-STEP / GE_TIME)
        gie *= np.exp(-STEP / GE_TIME)
        gi *= np.exp(-STEP / GI_TIME)
        gi += TO_EXCITATORY * (silences.sum() - silences)  # felt in the next step
        pre *= np.exp(-STEP / PRE_TIME)
        post_1 *= np.exp(-STEP / POST_1_TIME)
        post_2 *= np.exp(-STEP / POST_2_TIME)
        if growth:
            theta *= np.exp(-STEP / THETA_TIME)
