"""FORCE: least squares on the network's own activity, and a pattern that goes on without a teacher."""

from __future__ import annotations

import numpy as np
import pytest

from neuropil.errors import ConfigError, DataError, ShapeError
from neuropil.spiking import FORCE


def test_a_taught_network_goes_on_by_itself() -> None:
    t = np.arange(4000) * 0.1 / 6
    target = (1.3 / 1.5 * np.sin(np.pi * t) + 0.6 * np.sin(2 * np.pi * t) / 1.5)[:, None]
    network = FORCE(300, 1, random_state=1)
    taught = network.teach(target)
    assert np.abs(taught.error[-1000:]).mean() < 0.02 < np.abs(taught.error[:50]).mean()
    phase = np.arange(4000, 4600) * 0.1 / 6
    expected = 1.3 / 1.5 * np.sin(np.pi * phase) + 0.6 * np.sin(2 * np.pi * phase) / 1.5
    alone = network.run(600, state=taught.state).output[:, 0]
    assert np.abs(alone - expected).mean() < 0.15 * np.abs(expected).mean()
    silent = FORCE(300, 1, random_state=1).run(600).output
    assert not silent.any()  # what was never taught says nothing


def test_the_readout_is_ridge_regression_on_the_rates_it_met() -> None:
    """With the feedback cut, what the network does is known beforehand, and so is what least squares makes of it."""
    rng = np.random.default_rng(0)
    target, drive = rng.normal(size=(80, 2)), rng.normal(size=(80, 3))
    network = FORCE(20, 2, 3, every=1, alpha=0.3, random_state=0)
    network.feedback[:] = 0
    potential, rates = network.start.potential, []
    for now in drive:
        pull = network.connections @ np.tanh(potential) + network.input_weight @ now
        potential = potential + 0.1 * (pull - potential)
        rates.append(np.tanh(potential))
    r = np.array(rates)
    run = network.teach(target, drive)
    expected = np.linalg.solve(r.T @ r + 0.3 * np.eye(20), r.T @ target)
    np.testing.assert_allclose(network.readout, expected, rtol=1e-7)
    np.testing.assert_allclose(run.output[-1], r[-1] @ expected, rtol=1e-7)
    np.testing.assert_allclose(run.state.potential, potential, rtol=1e-12)


def test_a_run_in_pieces_is_the_run() -> None:
    network = FORCE(50, 1, random_state=0)
    network.teach(np.sin(np.arange(200) * 0.1)[:, None])
    whole = network.run(60)
    first = network.run(25)
    second = network.run(35, state=first.state)
    assert np.array_equal(np.concatenate([first.output, second.output]), whole.output)
    assert not len(whole.error)


def test_what_does_not_fit_is_told_in_one_line() -> None:
    with pytest.raises(ConfigError, match="expected at least 1"):
        FORCE(0, 1)
    with pytest.raises(ConfigError, match="sparsity=0"):
        FORCE(5, 1, sparsity=0)
    network = FORCE(5, 1, 2)
    with pytest.raises(ShapeError, match=r"expected \[3, 2\]"):
        network.run(3)
    with pytest.raises(ShapeError, match="target"):
        network.teach(np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(DataError, match="finite"):
        network.teach(np.full((3, 1), np.nan), np.zeros((3, 2)))
    with pytest.raises(ConfigError, match="at least 0"):
        network.run(-1)
