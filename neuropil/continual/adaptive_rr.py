"""Adaptive replay ratio: few updates while a critic's plasticity still moves, many once it has settled.

Ma, Li, Zhang, Liu, Wang, Chen, Shen, Wang, Tao: Revisiting Plasticity in Visual Reinforcement Learning: Data, Modules
and Training Stages. ICLR 2024. arXiv:2310.07418
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from neuropil.errors import ConfigError, EmptyTaskError, IncompatibleError, MissingExtraError, NonFiniteError
from neuropil.plotting import canvas
from neuropil.training.plasticity import fraction_active_units

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ReplayRatio:
    """A fixed number of updates per step of the environment, below one too.

    Half an update per step is one update every second step: what is due is carried on, batches stay whole.

    Args:
        ratio: updates per step, at least 0.

    >>> half = ReplayRatio(0.5)
    >>> [half.updates_due() for step in range(4)]
    [0, 1, 0, 1]
    """

    def __init__(self, ratio: float) -> None:
        self.ratio = _checked("ReplayRatio.ratio", ratio)
        self._owed = 0.0

    def updates_due(self, steps: int = 1) -> int:
        """Updates to make now, after `steps` more steps of the environment."""
        if steps < 0:
            raise ConfigError(f"{type(self).__name__}.updates_due: got {steps} steps, expected at least 0")
        self._owed += self.ratio * steps
        due = math.floor(self._owed + 1e-9)
        self._owed -= due
        return due

    def observe(self, active_units: float) -> bool:
        """An episode ended with this fraction of active units; returns whether the ratio has just changed."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Where it is."""
        return {"ratio": self.ratio, "owed": self._owed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.ratio, self._owed = state["ratio"], state["owed"]


class AdaptiveReplayRatio(ReplayRatio):
    """Starts with few updates per step, and changes to many, once and for good, when plasticity has settled.

    Early in training a critic that is updated too often on little data loses active units that it does not get back.
    So the fraction of active units of the critic is averaged over intervals of episodes; as soon as two intervals in
    a row differ by no more than `tolerance`, the high ratio begins.

    Where early updates do no harm, as in the easy task of the study, replay much from the start: waiting only costs.
    Watching costs one forward pass of the critic an episode.

    It knows nothing of the library that does the learning: `replay_ratio` drives a Stable-Baselines3 model with it, and
    in a loop of your own make `updates_due()` updates after each step, and `observe` after each episode.

    Args:
        low: updates per step to begin with.
        high: updates per step from the change on.
        tolerance: largest change of the mean fraction of active units that counts as settled. The published 0.001 is
            for averages over many episodes of a long training; short intervals want more.
        interval: episodes in a mean.

    >>> control = AdaptiveReplayRatio(interval=2, tolerance=0.01)
    >>> [control.observe(fraction) for fraction in (0.8, 0.7, 0.5, 0.5, 0.5, 0.51)]
    [False, False, False, False, False, True]
    >>> control.ratio
    2.0
    """

    def __init__(
        self, low: float = 0.5, high: float = 2.0, *, tolerance: float = 0.001, interval: int = 50
    ) -> None:
        super().__init__(_checked("AdaptiveReplayRatio.low", low))
        self.high = _checked("AdaptiveReplayRatio.high", high)
        if low > high:
            raise ConfigError(f"AdaptiveReplayRatio: low={low} is above high={high}, expected low <= high")
        if not tolerance >= 0:
            raise ConfigError(f"AdaptiveReplayRatio.tolerance: got {tolerance}, expected at least 0")
        if interval < 1:
            raise ConfigError(f"AdaptiveReplayRatio.interval: got {interval}, expected at least 1 episode")
        self.tolerance, self.interval = tolerance, interval
        self.switched_after: int | None = None  # episodes
        self.episodes = 0
        self._sum = 0.0  # of the interval under way
        self._before: float | None = None  # mean of the interval before

    def observe(self, active_units: float) -> bool:
        """Note an episode's fraction of active units; True when the high ratio begins with it."""
        if not math.isfinite(active_units):
            raise NonFiniteError(
                f"AdaptiveReplayRatio.observe: got {active_units}, expected a fraction in [0, 1]"
            )
        self.episodes += 1
        self._sum += active_units
        if self.switched_after is not None or self.episodes % self.interval:
            return False
        mean, self._sum = self._sum / self.interval, 0.0
        before, self._before = self._before, mean
        if before is None or abs(mean - before) > self.tolerance:
            return False
        self.ratio, self.switched_after = self.high, self.episodes
        return True

    def state_dict(self) -> dict[str, Any]:
        """Where it is."""
        mine = {"episodes": self.episodes, "sum": self._sum, "before": self._before}
        return {**super().state_dict(), **mine, "switched_after": self.switched_after}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self.episodes, self._sum, self._before = state["episodes"], state["sum"], state["before"]
        self.switched_after = state["switched_after"]


class EpisodeRecord(NamedTuple):
    """What was seen when an episode ended."""

    step: int  # of the environment, since training began
    updates: int  # made so far
    ratio: float  # updates per step from here on
    active_units: float | None  # fraction in [0, 1]; None before learning starts


@dataclass(frozen=True, eq=False)
class ReplayHistory:
    """A training's replay ratio and plasticity, episode by episode."""

    steps: NDArray[np.int64]  # [episodes], of the environment
    updates: NDArray[np.int64]  # [episodes], made so far
    ratios: NDArray[np.float64]  # [episodes], updates per step from there on
    active_units: NDArray[np.float64]  # [episodes], NaN before learning starts
    switched_at: int | None  # step at which the ratio changed first

    def plot(self) -> Any:
        """Active units and updates against the environment's steps, the change marked, as a matplotlib figure."""
        figure, (above, below) = canvas(2)
        above.plot(self.steps, self.active_units, marker=".", color="#4a8f98")
        above.set(xlabel="steps", ylabel="active units", title="critic")
        below.plot(self.steps, self.updates, color="#173f56")
        below.set(xlabel="steps", ylabel="updates", title="updates made")
        if self.switched_at is not None:
            for axes in (above, below):
                axes.axvline(self.switched_at, color="#c96f4a", linewidth=1)
        return figure


def replay_history(records: Sequence[EpisodeRecord]) -> ReplayHistory:
    """What a `replay_ratio` callback saw, as arrays: give it `callback.driver.records`.

    Raises EmptyTaskError when no episode has ended.

    >>> replay_history([EpisodeRecord(200, 0, 0.5, None), EpisodeRecord(400, 100, 2.0, 0.6)]).switched_at
    400
    """
    if not records:
        raise EmptyTaskError("replay_history: no episode has ended; train longer")
    steps, updates, ratios, active = zip(*records, strict=True)
    changes = [
        step for step, before, now in zip(steps[1:], ratios, ratios[1:], strict=False) if before != now
    ]
    return ReplayHistory(
        np.array(steps), np.array(updates), np.array(ratios, dtype=float),
        np.array([np.nan if value is None else value for value in active]), changes[0] if changes else None,
    )  # fmt: skip


class ReplayRatioDriver:
    """Makes an off-policy model of Stable-Baselines3 update as often as a `ReplayRatio` says.

    `replay_ratio` wraps it as a callback. It sets the model's `gradient_steps` before each round of training, to 0
    where none is due, and restores it at the end. Steps before `learning_starts` do not count.
    """

    def __init__(self, control: ReplayRatio, samples: int = 256) -> None:
        if samples < 1:
            raise ConfigError(f"replay_ratio.samples: got {samples}, expected at least 1")
        self.control, self.samples = control, samples
        self.records: list[EpisodeRecord] = []
        self._counted = 0  # steps already turned into updates
        self._gradient_steps: int | None = None  # the model's own setting

    def training_start(self, model: Any) -> None:
        """Refuse a model that does not learn from replay."""
        if not hasattr(model, "replay_buffer") or not hasattr(model, "gradient_steps"):
            raise IncompatibleError(
                f"replay_ratio: {type(model).__name__} keeps no replay buffer, expected an off-policy algorithm "
                "such as SAC, TD3 or DQN"
            )
        self._gradient_steps = model.gradient_steps
        self._counted = max(model.num_timesteps, model.learning_starts)

    def step(self, model: Any, dones: Any) -> None:
        """After each step of the environments: watch the critic where an episode ended."""
        for _ in range(int(np.sum(dones))):
            learning = model.num_timesteps > model.learning_starts and model.replay_buffer.size() > 0
            fraction = critic_active_units(model, self.samples) if learning else None
            if fraction is not None:
                self.control.observe(fraction)
            self.records.append(
                EpisodeRecord(model.num_timesteps, model._n_updates, self.control.ratio, fraction)
            )

    def rollout_end(self, model: Any) -> None:
        """Before each round of training: say how many updates it makes."""
        new = max(0, model.num_timesteps - self._counted)
        self._counted += new
        model.gradient_steps = self.control.updates_due(new)

    def training_end(self, model: Any) -> None:
        """Give the model its own setting back."""
        if self._gradient_steps is not None:
            model.gradient_steps = self._gradient_steps


def replay_ratio(control: ReplayRatio, *, samples: int = 256) -> Any:
    """Stable-Baselines3 callback that makes an off-policy model update as often as `control` says.

    It acts on your own SAC, TD3, DDPG or DQN model, whatever its policy, environment and buffer. After each episode the
    fraction of active units of the critic is measured on a batch from the replay buffer, without touching numpy's
    random state, so that a run is the same with and without being watched.

    Args:
        control: `ReplayRatio(2.0)` or `AdaptiveReplayRatio(...)`.
        samples: transitions that active units are measured on.

    Returns:
        A `BaseCallback` whose `driver.records` is a list of `EpisodeRecord`.

    Raises:
        MissingExtraError: Stable-Baselines3 is not installed.
        IncompatibleError: on `learn`, when the model keeps no replay buffer.

    >>> from stable_baselines3 import SAC
    >>> model = SAC("MlpPolicy", "Pendulum-v1", learning_starts=50, policy_kwargs={"net_arch": [16]}, seed=0)
    >>> callback = replay_ratio(AdaptiveReplayRatio(low=0.1, high=1.0, interval=1, tolerance=1.0))
    >>> _ = model.learn(90, callback=callback)
    >>> model._n_updates
    4
    """
    try:
        from stable_baselines3.common.callbacks import BaseCallback  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("replay_ratio needs Stable-Baselines3; pip install 'neuropil[rl]'") from None

    class ReplayRatioCallback(BaseCallback):
        driver = ReplayRatioDriver(control, samples)

        def _on_training_start(self) -> None:
            self.driver.training_start(self.model)

        def _on_step(self) -> bool:
            self.driver.step(self.model, self.locals["dones"])
            return True

        def _on_rollout_end(self) -> None:
            self.driver.rollout_end(self.model)

        def _on_training_end(self) -> None:
            self.driver.training_end(self.model)

    return ReplayRatioCallback()


def critic_active_units(model: Any, samples: int = 256) -> float:
    """Fraction of active units, in [0, 1], of a Stable-Baselines3 model's critic on transitions from its buffer.

    Of SAC, TD3 and DDPG it is the critic at the actions that were taken, of DQN the value net.
    """
    state = np.random.get_state()  # noqa: NPY002  (buffers draw from numpy's own state; they must not notice)
    batch = model.replay_buffer.sample(samples, env=model._vec_normalize_env)
    np.random.set_state(state)  # noqa: NPY002
    critic = getattr(model, "critic", None)
    if critic is None:
        return fraction_active_units(model.q_net, batch.observations)
    return fraction_active_units(_Critic(critic, batch.observations), batch.actions)


class _Critic(nn.Module):
    """A critic as a function of the action alone, at given observations."""

    def __init__(self, critic: nn.Module, observations: Any) -> None:
        super().__init__()
        self.critic, self.observations = critic, observations

    def forward(self, actions: Tensor) -> Any:
        return self.critic(self.observations, actions)


def _checked(name: str, ratio: float) -> float:
    if not (math.isfinite(ratio) and ratio >= 0):
        raise ConfigError(f"{name}: got {ratio}, expected updates per step, at least 0")
    return float(ratio)
