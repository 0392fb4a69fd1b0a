from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neuropil.continual import (
    AdaptiveReplayRatio,
    EpisodeRecord,
    ReplayRatio,
    critic_active_units,
    replay_history,
    replay_ratio,
)
from neuropil.errors import ConfigError, EmptyTaskError, IncompatibleError, MissingExtraError, NonFiniteError

sb3 = pytest.importorskip("stable_baselines3")


def history() -> partial[Any]:
    seen = [(200, 0, 0.5, None), (400, 90, 0.5, 0.7), (600, 190, 2.0, 0.65), (800, 590, 2.0, 0.66)]
    return partial(replay_history, [EpisodeRecord(*row) for row in seen])


PARTS = [("analysis", history)]


def agent(kind: str = "SAC", **settings: Any) -> Any:
    environment = "CartPole-v1" if kind == "DQN" else "Pendulum-v1"
    given = {"learning_starts": 20, "batch_size": 16, "policy_kwargs": {"net_arch": [16, 16]}, "seed": 3}
    return getattr(sb3, kind)("MlpPolicy", environment, **(given | settings))


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 4), st.lists(st.integers(0, 5), max_size=30))
def test_what_is_due_is_never_lost(ratio: float, steps: list[int]) -> None:
    control = ReplayRatio(ratio)
    made = 0
    for taken, new in enumerate(steps):
        made += control.updates_due(new)
        assert made == pytest.approx(ratio * sum(steps[: taken + 1]), abs=1.0)
        assert made <= ratio * sum(steps[: taken + 1]) + 1e-6


def test_half_a_ratio_is_every_second_step() -> None:
    half, tenth = ReplayRatio(0.5), ReplayRatio(0.1)
    assert [half.updates_due() for _ in range(6)] == [0, 1] * 3
    assert sum(tenth.updates_due() for _ in range(1000)) == 100  # tenths do not add up exactly in binary


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=40), st.integers(1, 5), st.floats(0, 0.3))
def test_it_changes_once_at_the_first_two_like_intervals(
    seen: list[float], interval: int, tolerance: float
) -> None:
    control = AdaptiveReplayRatio(0.5, 2.0, tolerance=tolerance, interval=interval)
    changed = [control.observe(fraction) for fraction in seen]
    means = [
        sum(seen[i : i + interval]) / interval for i in range(0, len(seen) - len(seen) % interval, interval)
    ]
    settled = [k for k in range(1, len(means)) if abs(means[k] - means[k - 1]) <= tolerance]
    assert sum(changed) == bool(settled)
    assert control.ratio == (2.0 if settled else 0.5)
    if settled:
        assert changed.index(True) == (settled[0] + 1) * interval - 1
        assert control.switched_after == (settled[0] + 1) * interval


def test_a_restored_control_goes_on_alike() -> None:
    seen = [0.8, 0.6, 0.5, 0.52, 0.5, 0.51, 0.5]
    control = AdaptiveReplayRatio(interval=2, tolerance=0.02)
    for fraction in seen[:3]:
        control.observe(fraction)
    control.updates_due(3)
    twin = AdaptiveReplayRatio(interval=2, tolerance=0.02)
    twin.load_state_dict(control.state_dict())
    for each in (control, twin):
        assert [each.observe(fraction) for fraction in seen[3:]] == [False, False, True, False]
        assert each.updates_due(1) == 2  # half a one was owed


@pytest.mark.parametrize(("kind", "due"), [("SAC", 40), ("TD3", 40), ("DDPG", 40), ("DQN", 40)])
@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_a_users_model_makes_the_updates_that_are_due(kind: str, due: int, ratio: float) -> None:
    model = agent(kind, train_freq=4) if kind == "DQN" else agent(kind)
    before = model.gradient_steps
    model.learn(20 + due, callback=replay_ratio(ReplayRatio(ratio)))
    assert model._n_updates == ratio * due
    assert model.gradient_steps == before


def test_ratio_one_is_the_librarys_own_training() -> None:
    plain = agent(learning_starts=180)
    plain.learn(250)  # an episode ends in between, where the critic is looked at
    driven = agent(learning_starts=180)
    callback = replay_ratio(ReplayRatio(1.0))
    driven.learn(250, callback=callback)
    assert [record.step for record in callback.driver.records] == [200]
    assert all(
        torch.equal(a, b) for a, b in zip(weights(plain).values(), weights(driven).values(), strict=True)
    )


def test_environments_side_by_side_count_each_step() -> None:
    from stable_baselines3.common.env_util import make_vec_env

    model = sb3.SAC(
        "MlpPolicy", make_vec_env("Pendulum-v1", 2, seed=1), learning_starts=20, batch_size=8,
        policy_kwargs={"net_arch": [8]}, seed=0,
    )  # fmt: skip
    callback = replay_ratio(ReplayRatio(0.5))
    model.learn(420, callback=callback)
    assert model._n_updates == 200
    assert [record.step for record in callback.driver.records] == [400, 400]


def test_adapting_it_changes_when_the_critic_has_settled() -> None:
    model = agent()
    callback = replay_ratio(AdaptiveReplayRatio(low=0.05, high=0.1, interval=1, tolerance=1.0))
    model.learn(800, callback=callback)
    found = replay_history(callback.driver.records)
    assert found.switched_at == 400 and found.ratios.tolist() == [0.05, 0.1, 0.1, 0.1]
    assert model._n_updates == 19 + 40
    assert np.all((found.active_units > 0) & (found.active_units < 1))


@pytest.mark.parametrize("kind", ["SAC", "DQN"])
def test_active_units_of_a_critic_by_hand(kind: str) -> None:
    model = agent(kind)
    model.learn(60)
    found = critic_active_units(model, 32)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert critic_active_units(model, 32) == found  # the buffer draws the same: numpy's state was put back
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    batch = model.replay_buffer.sample(32)
    nets = [model.q_net.q_net] if kind == "DQN" else list(model.critic.q_networks)
    x = batch.observations if kind == "DQN" else torch.cat([batch.observations, batch.actions], 1)
    positive = total = 0
    for net in nets:
        h = x
        for layer in net:
            h = layer(h)
            if isinstance(layer, nn.ReLU):
                positive, total = positive + int((h > 0).sum()), total + h.numel()
    assert found == pytest.approx(positive / total)


def test_an_on_policy_model_is_refused() -> None:
    model = sb3.PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8)
    with pytest.raises(IncompatibleError, match="PPO keeps no replay buffer"):
        model.learn(8, callback=replay_ratio(ReplayRatio(1.0)))


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.callbacks", None)
    with pytest.raises(MissingExtraError, match=r"neuropil\[rl\]"):
        replay_ratio(ReplayRatio(1.0))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ReplayRatio(-1), ConfigError, "got -1"),
        (lambda: ReplayRatio(float("nan")), ConfigError, "nan"),
        (lambda: AdaptiveReplayRatio(3, 2), ConfigError, "above high"),
        (lambda: AdaptiveReplayRatio(tolerance=-0.1), ConfigError, "tolerance"),
        (lambda: AdaptiveReplayRatio(interval=0), ConfigError, "interval"),
        (lambda: AdaptiveReplayRatio().observe(float("nan")), NonFiniteError, "nan"),
        (lambda: ReplayRatio(1).updates_due(-1), ConfigError, "-1 steps"),
        (lambda: replay_history([]), EmptyTaskError, "no episode"),
        (lambda: replay_ratio(ReplayRatio(1), samples=0), ConfigError, "samples"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
