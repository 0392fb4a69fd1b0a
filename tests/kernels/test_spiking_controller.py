"""The population's scan is the equations of one controller, neuron by neuron."""

from __future__ import annotations

import numpy as np
import pytest

from neuropil.errors import DataError, ShapeError
from neuropil.kernels import spiking_controller
from neuropil.kernels.spiking_controller import FLOOR, NEURON_ROWS, PAIR_ROWS, controller_scan


def population(seed: int = 0, many: int = 5, n: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    pairs = rng.uniform([[-2], [-1], [0], [0.1]], [[2], [1], [1], [2]], (many, 4, n // 2))
    neurons = rng.uniform(-1, 1, (many, len(NEURON_ROWS), n))
    for name in ("synapse_decay", "membrane_decay", "threshold", "threshold_decay"):
        row = NEURON_ROWS.index(name)
        neurons[:, row] = np.abs(neurons[:, row])
    return pairs, neurons, rng.uniform(0, 1, many)


def literal(errors: np.ndarray, pairs: np.ndarray, neurons: np.ndarray, keep: float) -> np.ndarray:
    """One controller on one sequence, with whole vectors and matrices of numpy."""
    n = neurons.shape[1]
    p = {name: np.repeat(row, 2) for name, row in zip(PAIR_ROWS, pairs, strict=True)}
    q = dict(zip(NEURON_ROWS, neurons, strict=True))
    same, swap = np.eye(n), np.eye(n)[np.arange(n) ^ 1]
    hear, again, shift = (
        np.diag(q[a]) @ same + np.diag(q[b]) @ swap
        for a, b in (
            ("weight_same", "weight_other"),
            ("recurrent_same", "recurrent_other"),
            ("shift_same", "shift_other"),
        )
    )
    sign = np.tile([1.0, -1.0], n // 2)
    v_in = s_in = i = v = z = np.zeros(n)
    h, h_in, u, out = q["threshold"].copy(), np.maximum(p["encoding_threshold"], FLOOR), 0.0, []
    for e in errors:
        v_in = p["encoding_decay"] * v_in + sign * p["encoding_weight"] * e + p["encoding_bias"] - s_in * h_in
        s_in = (v_in >= h_in).astype(float)
        i = q["synapse_decay"] * i + hear @ s_in + again @ z
        v = q["membrane_decay"] * v + i - z * np.maximum(h, FLOOR)
        h = q["threshold"] + q["threshold_decay"] * (h - q["threshold"]) + shift @ s_in
        z = (v >= np.maximum(h, FLOOR)).astype(float)
        u = keep * u + (1 - keep) * q["readout"] @ z
        out.append(u)
    return np.array(out)


def test_every_controller_on_every_sequence_is_the_equations() -> None:
    errors = np.random.default_rng(1).normal(size=(3, 80))
    pairs, neurons, keep = population()
    found = controller_scan(errors, pairs, neurons, keep)
    assert found.shape == (5, 3, 80) and (found.std(-1) > 0).mean() > 0.7
    for k in range(5):
        for s in range(3):
            np.testing.assert_allclose(
                found[k, s], literal(errors[s], pairs[k], neurons[k], keep[k]), atol=1e-12
            )


def test_it_runs_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = np.random.default_rng(1).normal(size=(1, 20))
    expected = controller_scan(errors, *population())
    monkeypatch.setattr(spiking_controller, "HAS_NUMBA", False)
    np.testing.assert_allclose(controller_scan(errors, *population()), expected, atol=1e-12)


def test_refusals() -> None:
    pairs, neurons, keep = population()
    with pytest.raises(ShapeError, match="do not fit"):
        controller_scan(np.zeros((1, 5)), pairs[:, :3], neurons, keep)
    with pytest.raises(ShapeError, match="sequences, time"):
        controller_scan(np.zeros(5), pairs, neurons, keep)
    with pytest.raises(DataError, match="NaN"):
        controller_scan(np.full((1, 5), np.nan), pairs, neurons, keep)
