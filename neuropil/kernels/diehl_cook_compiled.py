"""The loop behind `neuropil.kernels.diehl_cook`: one presentation, work following the spikes."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel

Array = Any  # numpy arrays, as Numba sees them

STEP = 0.5


@kernel
def present_compiled(
    offsets: Array, inputs: Array, weight: Array, theta: Array, rate_pre: float, rate_post: float, growth: float,
    counts: Array,
) -> None:  # fmt: skip
    """Run one presentation; see `present`. Presynaptic traces are worked out when a neuron fires."""
    units, steps = weight.shape[1], len(offsets) - 1
    v, ge, gi, wait = np.full(units, -65.0), np.zeros(units), np.zeros(units), np.zeros(units, np.int64)
    vi, gie, wait_i = np.full(units, -60.0), np.zeros(units), np.zeros(units, np.int64)
    last, post_1, post_2 = np.full(len(weight), -1, np.int64), np.zeros(units), np.zeros(units)
    silences = np.zeros(units, np.bool_)
    fall_e, fall_i = np.exp(-STEP / 1.0), np.exp(-STEP / 0.5)
    fall_1, fall_2, fall_theta = np.exp(-STEP / 20.0), np.exp(-STEP / 40.0), np.exp(-STEP / 1e7)
    for t in range(steps):
        for e in range(offsets[t], offsets[t + 1]):
            row = weight[inputs[e]]
            for j in range(units):
                ge[j] += row[j]
            if rate_pre != 0.0:
                for j in range(units):
                    row[j] = min(1.0, max(0.0, row[j] + rate_pre * post_1[j]))
            last[inputs[e]] = t
        loud = 0
        for j in range(units):
            if wait[j] > 0:
                wait[j] -= 1
            else:
                g = 1.0 + ge[j] + gi[j]
                settled = (-65.0 - 100.0 * gi[j]) / g
                v[j] = settled + (v[j] - settled) * np.exp(-STEP * g / 100.0)
                if v[j] > -72.0 + theta[j]:
                    v[j] = -65.0
                    wait[j] = 10
                    theta[j] += growth
                    counts[j] += 1
                    if rate_post != 0.0 and post_2[j] != 0.0:
                        for i in range(len(weight)):
                            if last[i] >= 0:
                                pre = np.exp(-STEP * (t - last[i]) / 20.0)
                                weight[i, j] = min(1.0, weight[i, j] + rate_post * pre * post_2[j])
                    post_1[j] = 1.0
                    post_2[j] = 1.0
                    gie[j] += 10.4
            silences[j] = False
            if wait_i[j] > 0:
                wait_i[j] -= 1
            else:
                g = 1.0 + gie[j]
                settled = -60.0 / g
                vi[j] = settled + (vi[j] - settled) * np.exp(-STEP * g / 10.0)
                if vi[j] > -40.0:
                    vi[j] = -45.0
                    wait_i[j] = 4
                    silences[j] = True
                    loud += 1
        for j in range(units):
            ge[j] *= fall_e
            gie[j] *= fall_e
            gi[j] = gi[j] * fall_i + 17.0 * (loud - silences[j])
            post_1[j] *= fall_1
            post_2[j] *= fall_2
            if growth != 0.0:
                theta[j] *= fall_theta
