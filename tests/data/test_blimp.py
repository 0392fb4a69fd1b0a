"""A blimp in closed loop: Gymnasium's own check, the plant of the logged episodes, and errors known in advance."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from neuropil.data import BlimpState, blimp_altitude, blimp_step, pid_episodes
from neuropil.errors import ConfigError
from neuropil.spiking import SpikingControllerRegressor

checker = pytest.importorskip("gymnasium.utils.env_checker")


def fly(env: Any, command: Callable[[float, float], float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Errors and commands of an episode."""
    (error, speed), _ = env.reset(seed=seed)
    errors, commands, over = [], [], False
    while not over:
        errors.append(float(error))
        commands.append(command(float(error), float(speed)))
        (error, speed), _, lost, late, _ = env.step([commands[-1]])
        over = lost or late
    return np.array(errors), np.array(commands)


@pytest.mark.filterwarnings("ignore:.*(infinity|symmetric and normalized).*:UserWarning")
def test_gymnasium_accepts_it() -> None:
    checker.check_env(blimp_altitude(steps=30, hold=10), skip_render_check=True)


@pytest.mark.parametrize("force", [-1.5, 0.4, 2.0])
def test_without_an_integral_the_error_that_stays_is_the_force_over_the_gain(force: float) -> None:
    env = blimp_altitude(steps=400, hold=1000)
    env.reset(seed=1)
    state = env.state._replace(force=force)
    for _ in range(400):
        state = blimp_step(state, 2.0 * (state.wanted - state.altitude) - 2.5 * state.speed)
    assert state.wanted - state.altitude == pytest.approx(-force / 2.0, abs=1e-6)


def test_it_is_the_plant_of_the_logged_episodes() -> None:
    logged = pid_episodes(1, 120, hold=200)
    env = blimp_altitude(steps=120, hold=200)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    env.state = BlimpState(0.0, 0.0, 0.0, rng.uniform(-1, 1, 1)[0], rng.uniform(-4, 4, 1)[0])
    for t in range(120):
        assert env.state.wanted - env.state.altitude == pytest.approx(logged.errors[0, t], abs=1e-9)
        env.step([logged.fast[0, t] + logged.slow[0, t]])


def test_episodes_change_end_and_repeat() -> None:
    env = blimp_altitude(steps=50, hold=20)
    errors, _ = fly(env, lambda error, speed: 2 * error - 2.5 * speed, seed=3)
    again, _ = fly(env, lambda error, speed: 2 * error - 2.5 * speed, seed=3)
    other, _ = fly(env, lambda error, speed: 2 * error - 2.5 * speed, seed=4)
    assert len(errors) == 50 and np.array_equal(errors, again) and not np.array_equal(errors, other)
    jumps = np.flatnonzero(np.abs(np.diff(errors)) > 0.3) + 1
    assert set(jumps) <= {20, 40}  # nothing but a new altitude makes the error jump
    lost, _ = fly(blimp_altitude(steps=500, hold=500, disturbance=0.0, ceiling=3.0), lambda *_: 1.0)
    # at one metre per second squared and rotors that lag by 0.3 s: 0.5 (t - 0.3)^2 + 0.045 = 3 metres at t = 2.7 s,
    # half a step earlier as speed moves the blimp in the same step
    assert len(lost) in (26, 27)


def test_a_dead_zone_swallows_small_commands() -> None:
    rest = BlimpState(0.0, 0.0, 0.0, 0.0, 0.0)
    assert blimp_step(rest, 0.4, dead_zone=0.5) == rest
    assert blimp_step(rest, 0.6, dead_zone=0.5).speed > 0


def test_a_spiking_controller_says_in_flight_what_it_says_of_the_log_of_the_flight() -> None:
    log = pid_episodes(10, 100, hold=50, disturbance=0.0)
    model = SpikingControllerRegressor(6, "lif", generations=20, population=8).fit(log.errors, log.fast)
    seen: list[float] = []

    def command(error: float, speed: float) -> float:
        seen.append(error)
        return float(model.predict(np.array([seen]))[0, -1])

    errors, commands = fly(blimp_altitude(steps=60, hold=20, disturbance=0.3), command)
    assert np.ptp(commands) > 0
    np.testing.assert_allclose(commands, model.predict(errors[None])[0], atol=1e-12)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="hold=0"):
        blimp_altitude(hold=0)
    env = blimp_altitude()
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="one finite number"):
        env.step([np.nan])


def test_gymnasium_is_imported_only_when_a_blimp_is_made() -> None:
    code = "import sys, neuropil.data; sys.exit('gymnasium' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
