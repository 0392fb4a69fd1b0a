"""Episodes obey the equations of the plant and of the controller."""

from __future__ import annotations

import numpy as np
import pytest

from neuropil.data import pid_episodes
from neuropil.errors import ConfigError


def test_the_slow_part_is_the_sum_of_errors_and_the_fast_part_sees_their_slope() -> None:
    found = pid_episodes(3, 300, hold=100, gains=(2.0, 0.7, 1.5))
    np.testing.assert_allclose(found.slow, 0.07 * np.cumsum(found.errors, 1))
    slope = np.diff(found.errors, axis=1) / 0.1
    inner = np.arange(1, 300) % 100 != 0
    np.testing.assert_allclose(
        found.fast[:, 1:][:, inner], (2 * found.errors[:, 1:] + 1.5 * slope)[:, inner], atol=1e-9
    )


def test_the_integral_finds_the_unknown_force() -> None:
    """At rest the motor must answer the force: whatever is left is in the slow part, and the error is gone."""
    found = pid_episodes(20, 600, hold=600)
    assert np.abs(found.errors[:, -1]).max() < 1e-3
    assert np.abs(found.fast[:, -1]).max() < 1e-2
    assert np.abs(found.slow[:, -1]).max() <= 4.0 and np.abs(found.slow[:, -1]).std() > 0.5


def test_without_a_force_and_an_integral_the_error_still_goes() -> None:
    found = pid_episodes(5, 400, hold=400, gains=(2.0, 0.0, 2.5), disturbance=0.0)
    assert np.abs(found.errors[:, -1]).max() < 1e-3 and not found.slow.any()


def test_same_seed_same_episodes() -> None:
    first, again, other = (pid_episodes(2, 50, random_state=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.errors, again.errors)
    assert not np.array_equal(first.errors, other.errors)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="dt=0"):
        pid_episodes(1, 10, dt=0.0)
    with pytest.raises(ConfigError, match="episodes=0"):
        pid_episodes(0, 10)
