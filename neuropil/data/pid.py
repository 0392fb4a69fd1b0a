"""Episodes of a double integrator under PID control: what a controller saw, and what it answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neuropil.errors import ConfigError

if TYPE_CHECKING:
    from jaxtyping import Float


class PIDEpisodes(NamedTuple):
    """Errors and the two parts of the command, each `[episodes, steps]`."""

    errors: Float[np.ndarray, "episodes steps"]  # metres
    fast: Float[np.ndarray, "episodes steps"]  # proportional and derivative, metres per second squared
    slow: Float[np.ndarray, "episodes steps"]  # integral


def pid_episodes(
    episodes: int,
    steps: int,
    *,
    hold: int = 150,
    gains: tuple[float, float, float] = (2.0, 0.8, 2.5),
    disturbance: float = 4.0,
    dt: float = 0.1,
    motor_lag: float = 0.3,
    largest: float = 8.0,
    random_state: int = 0,
) -> PIDEpisodes:
    """Altitude keeping: `x'' = motor + b`, the motor following the command with a lag and a limit.

    Every `hold` steps a new altitude in [-1, 1] is asked for and the unknown force `b`, such as buoyancy, becomes
    another in [-disturbance, disturbance]; the integral has to find it. After Burgers, Stroobants and de Croon (2023).

    Args:
        episodes, steps: How many, and their length.
        hold: Steps between changes.
        gains: Proportional, integral and derivative.
        disturbance: Bound on the unknown force, in metres per second squared.
        dt: Length of a step in seconds, > 0.
        motor_lag: Time constant of the motor in seconds, at least `dt`.
        largest: Limit of the command.
        random_state: Seed.

    Raises ConfigError for settings out of range.

    >>> found = pid_episodes(2, 300)
    >>> found.errors.shape, bool(np.abs(found.errors[:, 140:150]).max() < 0.15)  # settled before the change
    ((2, 300), True)
    """
    if min(episodes, steps, hold) < 1 or not 0 < dt <= motor_lag or disturbance < 0 or largest <= 0:
        raise ConfigError(
            f"pid_episodes: episodes={episodes}, steps={steps}, hold={hold}, dt={dt}, motor_lag={motor_lag}, "
            f"disturbance={disturbance}, largest={largest}; expected counts of 1 or more and 0 < dt <= motor_lag"
        )
    rng = np.random.default_rng(random_state)
    found = PIDEpisodes(*(np.zeros((episodes, steps)) for _ in range(3)))
    place, speed, motor, total = (np.zeros(episodes) for _ in range(4))
    wanted = force = before = np.zeros(episodes)
    for t in range(steps):
        changed = t % hold == 0
        if changed:
            wanted, force = rng.uniform(-1, 1, episodes), rng.uniform(-disturbance, disturbance, episodes)
        error = wanted - place
        slope = np.zeros(episodes) if changed else (error - before) / dt
        before, total = error, total + dt * error
        found.errors[:, t] = error
        found.fast[:, t] = gains[0] * error + gains[2] * slope
        found.slow[:, t] = gains[1] * total
        command = np.clip(found.fast[:, t] + found.slow[:, t], -largest, largest)
        motor = motor + dt / motor_lag * (command - motor)
        speed = speed + dt * (motor + force)
        place = place + dt * speed
    return found
