"""A blimp that is to keep an altitude, as a Gymnasium environment: to fly controllers in closed loop."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from neuropil.errors import ConfigError, MissingExtraError


class BlimpState(NamedTuple):
    """What the blimp does, and what is asked of it."""

    altitude: float  # metres
    speed: float  # metres per second
    motor: float  # acceleration that the rotors give, metres per second squared
    wanted: float  # altitude that is asked for, metres
    force: float  # unknown acceleration such as buoyancy, metres per second squared


def blimp_step(
    state: BlimpState, command: float, *, dt: float = 0.1, motor_lag: float = 0.3, dead_zone: float = 0.0
) -> BlimpState:
    """One step of `altitude'' = motor + force`, the motor following the command with a lag.

    Args:
        state: Before the step.
        command: Acceleration that is asked of the rotors, metres per second squared.
        dt: Length of the step in seconds.
        motor_lag: Time constant of the rotors in seconds, at least `dt`.
        dead_zone: Commands of a smaller size do not move the rotors.

    >>> blimp_step(BlimpState(0.0, 1.0, 0.0, 0.0, -1.0), 3.0)
    BlimpState(altitude=0.1, speed=1.0, motor=1.0, wanted=0.0, force=-1.0)
    """
    heard = command if abs(command) >= dead_zone else 0.0
    motor = state.motor + (heard - state.motor) * (dt / motor_lag)
    speed = state.speed + dt * (motor + state.force)
    return state._replace(altitude=state.altitude + dt * speed, speed=speed, motor=motor)


def blimp_altitude(
    *,
    steps: int = 450,
    hold: int = 150,
    disturbance: float = 4.0,
    dt: float = 0.1,
    motor_lag: float = 0.3,
    dead_zone: float = 0.0,
    largest: float = 8.0,
    ceiling: float = 20.0,
) -> Any:
    """A `gymnasium.Env` in which a blimp is asked for altitudes while an unknown force pulls at it.

    The plant of `pid_episodes`, in closed loop: every `hold` steps a new altitude in [-1, 1] is asked for and the force
    becomes another in [-disturbance, disturbance]. Observed are the error (altitude asked for, minus altitude) and the
    speed, `[2]`; the action is the command, `[1]`; the reward is minus the size of the error after the step. An episode
    is truncated after `steps` steps and terminated when the blimp leaves `[-ceiling, ceiling]`. After Burgers,
    Stroobants and de Croon, "Evolving spiking neural networks to mimic PID control for autonomous blimps" (2023).

    Args:
        steps: Length of an episode.
        hold: Steps between changes.
        disturbance: Bound on the unknown force, metres per second squared, >= 0.
        dt: Length of a step in seconds, > 0.
        motor_lag: Time constant of the rotors in seconds, at least `dt`.
        dead_zone: Commands of a smaller size do not move the rotors, >= 0.
        largest: Limit of the command, metres per second squared, > 0.
        ceiling: Altitude, up or down, at which the blimp is lost, metres, > 1.

    Raises ConfigError for settings out of range, and for a command that is no finite number; MissingExtraError
    without Gymnasium (`pip install 'neuropil[rl]'`).

    >>> env = blimp_altitude(disturbance=0.0)
    >>> (error, speed), _ = env.reset(seed=0)
    >>> for _ in range(100):  # proportional and derivative
    ...     (error, speed), reward, _, _, _ = env.step([2.0 * error - 2.5 * speed])
    >>> bool(abs(error) < 1e-3)
    True
    """
    fine = min(steps, hold) >= 1 and disturbance >= 0 and 0 < dt <= motor_lag and dead_zone >= 0
    if not fine or not largest > 0 or not ceiling > 1:
        raise ConfigError(
            f"blimp_altitude: steps={steps}, hold={hold}, disturbance={disturbance}, dt={dt}, motor_lag={motor_lag}, "
            f"dead_zone={dead_zone}, largest={largest}, ceiling={ceiling}; expected counts of 1 or more, "
            "0 < dt <= motor_lag, largest > 0, ceiling > 1 and the others >= 0"
        )
    plant = {"dt": dt, "motor_lag": motor_lag, "dead_zone": dead_zone}
    return _environment()(steps, hold, disturbance, largest, ceiling, plant)


@functools.cache
def _environment() -> Any:
    """The class of the environment, made when Gymnasium is first needed."""
    try:
        import gymnasium  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("environments need gymnasium: pip install 'neuropil[rl]'") from None

    class BlimpAltitude(gymnasium.Env):
        """See `blimp_altitude`; `state` is a `BlimpState`."""

        metadata = {"render_modes": []}  # noqa: RUF012  what Gymnasium asks for

        def __init__(
            self, steps: int, hold: int, disturbance: float, largest: float, ceiling: float, plant: Any
        ) -> None:
            self.steps, self.hold, self.disturbance = steps, hold, disturbance
            self.largest, self.ceiling, self.plant = largest, ceiling, plant
            box = gymnasium.spaces.Box
            self.observation_space = box(-np.inf, np.inf, (2,), np.float32)
            self.action_space = box(-largest, largest, (1,), np.float32)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            super().reset(seed=seed)
            self.t = 0
            self.state = self._asked(BlimpState(0.0, 0.0, 0.0, 0.0, 0.0))
            return self._seen(), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            command = np.asarray(action, np.float64).ravel()
            if command.shape != (1,) or not np.isfinite(command).all():
                raise ConfigError(f"blimp_altitude: command {action!r}, expected one finite number")
            limited = float(np.clip(command[0], -self.largest, self.largest))
            self.state = blimp_step(self.state, limited, **self.plant)
            reward = -abs(self.state.wanted - self.state.altitude)
            self.t += 1
            if self.t % self.hold == 0:
                self.state = self._asked(self.state)
            lost = abs(self.state.altitude) > self.ceiling
            return self._seen(), reward, lost, self.t >= self.steps, {}

        def _asked(self, state: BlimpState) -> BlimpState:
            """Another altitude and another force."""
            wanted = float(self.np_random.uniform(-1, 1))
            return state._replace(
                wanted=wanted, force=self.disturbance * float(self.np_random.uniform(-1, 1))
            )

        def _seen(self) -> Any:
            return np.array([self.state.wanted - self.state.altitude, self.state.speed], np.float32)

    return BlimpAltitude
