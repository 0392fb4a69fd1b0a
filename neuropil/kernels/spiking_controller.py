"""A population of small spiking controllers, run side by side over a signal: what evolution calls thousands of times.

Neurons come in pairs that see the signal with opposite signs. Per controller and step, with error `e`, pair `k`:

    encoding   v = d_e v + (+-w e + b) - s h,  s = 1[v >= h]             one weight, bias, decay, threshold a pair
    hidden     i = d_i i + w_1 s_k+ + w_2 s_k- (+ r_1 z_k+ + r_2 z_k-)   z: hidden spikes of the step before
               h = h_0 + d_h (h - h_0) + c_1 s_k+ + c_2 s_k-             thresholds that incoming spikes shift
               v = d_v v + i - z h_before,  z = 1[v >= max(h, FLOOR)]
    decoder    u = d_u u + (1 - d_u) sum_j g_j z_j
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neuropil.errors import DataError, ShapeError
from neuropil.kernels.compiled import HAS_NUMBA, kernel, run_over

if TYPE_CHECKING:
    from jaxtyping import Float

Array = Any  # numpy arrays, as Numba sees them

FLOOR = 0.05  # thresholds stay above: a neuron below would fire for ever
PAIR_ROWS = ("encoding_weight", "encoding_bias", "encoding_decay", "encoding_threshold")
NEURON_ROWS = (
    "weight_same", "weight_other", "synapse_decay", "membrane_decay", "threshold", "readout",
    "recurrent_same", "recurrent_other", "shift_same", "shift_other", "threshold_decay",
)  # fmt: skip


def controller_scan(
    errors: Float[np.ndarray, "sequences time"],
    pairs: Float[np.ndarray, "population 4 pairs"],
    neurons: Float[np.ndarray, "population 11 neurons"],
    readout_decay: Float[np.ndarray, " population"],
) -> Float[np.ndarray, "population sequences time"]:
    """Commands of every controller on every sequence of errors; rows as in `PAIR_ROWS` and `NEURON_ROWS`.

    Neurons `2 k` and `2 k + 1` belong to pair `k`. Raises ShapeError when the arrays do not fit together, DataError
    when the errors are not finite.

    >>> pairs, neurons = np.zeros((1, 4, 1)), np.zeros((1, 11, 2))
    >>> pairs[:, 0], pairs[:, 3], neurons[:, 0], neurons[:, 4], neurons[:, 5, 0] = 1.0, 1.0, 1.0, 1.0, 2.0
    >>> controller_scan(np.array([[1.0, 0.0, 1.0]]), pairs, neurons, np.array([0.5])).tolist()
    [[[1.0, 0.5, 1.25]]]
    """
    population, _, n = neurons.shape
    if pairs.shape != (population, len(PAIR_ROWS), n // 2) or n % 2 or neurons.shape[1] != len(NEURON_ROWS):
        raise ShapeError(
            f"controller_scan: pairs {list(pairs.shape)} and neurons {list(neurons.shape)} do not fit; expected "
            f"[population, {len(PAIR_ROWS)}, n / 2] and [population, {len(NEURON_ROWS)}, n]"
        )
    if errors.ndim != 2 or readout_decay.shape != (population,):
        raise ShapeError(
            f"controller_scan: errors {list(errors.shape)}, readout_decay {list(readout_decay.shape)}; expected "
            f"[sequences, time] and [{population}]"
        )
    if not np.isfinite(errors).all():
        raise DataError("controller_scan: errors hold NaN or infinity")
    commands = np.empty((population, *errors.shape))
    given = [np.ascontiguousarray(each, np.float64) for each in (errors, pairs, neurons, readout_decay)]
    if HAS_NUMBA:
        run_over(controllers, population, population * errors.size * n, *given, commands, grain=1)
    else:
        controllers._function(0, population, *given, commands)
    return commands


@kernel
def controllers(
    start: int,
    stop: int,
    errors: Array,
    pairs: Array,
    neurons: Array,
    readout_decay: Array,
    commands: Array,
) -> None:
    """Run controllers `start` to `stop`."""
    n = neurons.shape[2]
    v_in, s_in = np.empty(n), np.empty(n)
    current, v, z, shift, before = np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    for each in range(start, stop):
        p, q, keep = pairs[each], neurons[each], readout_decay[each]
        for sequence in range(len(errors)):
            u = 0.0
            for j in range(n):
                v_in[j], s_in[j], current[j], v[j], z[j], shift[j] = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for t in range(errors.shape[1]):
                e = errors[sequence, t]
                for j in range(n):
                    k = j // 2
                    signal = p[0, k] * e if j % 2 == 0 else -p[0, k] * e
                    h = max(p[3, k], FLOOR)
                    v_in[j] = p[2, k] * v_in[j] + signal + p[1, k] - s_in[j] * h
                for j in range(n):
                    s_in[j] = 1.0 if v_in[j] >= max(p[3, j // 2], FLOOR) else 0.0
                    before[j] = z[j]
                heard = 0.0
                for j in range(n):
                    other = j + 1 if j % 2 == 0 else j - 1
                    h = max(q[4, j] + shift[j], FLOOR)
                    current[j] = (
                        q[2, j] * current[j]
                        + q[0, j] * s_in[j]
                        + q[1, j] * s_in[other]
                        + q[6, j] * before[j]
                        + q[7, j] * before[other]
                    )
                    v[j] = q[3, j] * v[j] + current[j] - before[j] * h
                    shift[j] = q[10, j] * shift[j] + q[8, j] * s_in[j] + q[9, j] * s_in[other]
                    z[j] = 1.0 if v[j] >= max(q[4, j] + shift[j], FLOOR) else 0.0
                    heard += q[5, j] * z[j]
                u = keep * u + (1 - keep) * heard
                commands[each, sequence, t] = u
