"""Adaptive replay ratio: an agent that begins with few updates per step and goes over to many."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from neuropil import data
from neuropil.bench import figures
from neuropil.bench.claim import at_least, exceeds
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.continual import (
    AdaptiveReplayRatio,
    ReplayRatio,
    critic_active_units,
    replay_history,
    replay_ratio,
)
from neuropil.errors import MissingExtraError, UnknownNameError, nearest
from neuropil.training.plasticity import fraction_active_units


@dataclass(frozen=True)
class Acting(Config):
    """An agent, its environment, and how often it updates."""

    environment: str = setting("Pendulum-v1", "any environment that gymnasium knows by name")
    algorithm: str = setting("sac", "learner of Stable-Baselines3", choices=("sac", "td3", "dqn"))
    policy: str = setting(
        "MlpPolicy", "kind of net; images want CnnPolicy", choices=("MlpPolicy", "CnnPolicy")
    )
    steps: int = setting(2000, "steps of the environment", low=1)
    learning_starts: int = setting(200, "random steps before the first update", low=1)
    hidden: int = setting(64, "width of the two hidden layers of actor and critic", low=1)
    batch_size: int = setting(64, "transitions per update", low=1)
    lr: float = setting(1e-3, "learning rate", low=0.0)
    discount: float = setting(0.95, "discount of later rewards", low=0.0, high=1.0)
    low: float = setting(0.5, "updates per step to begin with", low=0.0)
    high: float = setting(2.0, "updates per step later", low=0.0)
    tolerance: float = setting(
        0.02, "change of the mean fraction of active units that counts as none", low=0.0
    )
    interval: int = setting(2, "episodes in a mean", low=1)
    switch_step: int = setting(1000, "step at which the arm without a look at the critic changes", low=0)
    worst: float = setting(-1600.0, "return of an episode that scores 0", low=-1e9, high=1e9)
    best: float = setting(0.0, "return of an episode that scores 1", low=-1e9, high=1e9)


@dataclass(frozen=True)
class Relabelled(Config):
    """Images that come one after the other, at first with many wrong labels."""

    dataset: str = setting("fashion-mnist", "images to learn: a name that `neuropil data list` shows")
    wrong: float = setting(
        0.5, "share of the first phase's labels that are drawn at random", low=0.0, high=1.0
    )
    first_steps: int = setting(100, "steps with wrong labels", low=1)
    second_steps: int = setting(60, "steps with right labels and an empty buffer", low=1)
    arriving: int = setting(16, "new images per step", low=1)
    hidden: int = setting(128, "width of the two hidden layers", low=1)
    batch_size: int = setting(64, "images per update", low=1)
    lr: float = setting(1e-3, "learning rate", low=0.0)
    low: float = setting(0.5, "updates per step to begin with", low=0.0)
    high: float = setting(6.0, "updates per step later", low=0.0)
    tolerance: float = setting(
        0.01, "change of the mean fraction of active units that counts as none", low=0.0
    )
    interval: int = setting(10, "steps in a mean", low=1)


class ScheduledRatio(ReplayRatio):
    """The ablation: the ratio changes at a step fixed beforehand, whatever the critic does."""

    def __init__(self, low: float, high: float, switch_step: int) -> None:
        super().__init__(low)
        self.high, self.steps, self.switch_step = high, 0, switch_step

    def updates_due(self, steps: int = 1) -> int:
        """Updates to make now."""
        self.steps += steps
        if self.steps >= self.switch_step:
            self.ratio = self.high
        return super().updates_due(steps)


def trial(trial: Trial) -> Outcome:
    """One agent's life, or one stream of images."""
    control = _control(trial.arm.removeprefix("relabel-"), trial.config)
    if isinstance(trial.config, Relabelled):
        return _images(trial, control)
    return _agent(trial, control)


def _control(arm: str, config: Any) -> ReplayRatio:
    if arm == "adaptive":
        return AdaptiveReplayRatio(
            config.low, config.high, tolerance=config.tolerance, interval=config.interval
        )
    if arm == "scheduled":
        return ScheduledRatio(config.low, config.high, config.switch_step - config.learning_starts)
    return ReplayRatio(config.high if arm == "high" else config.low)


def _agent(trial: Trial, control: ReplayRatio) -> Outcome:
    config: Acting = trial.config
    model = _make_agent(config, trial.seed)
    callback = replay_ratio(control)
    started = time.perf_counter()
    model.learn(config.steps, callback=callback)
    seconds = time.perf_counter() - started
    seen = replay_history(callback.driver.records)
    returns = [float(episode["r"]) for episode in model.ep_info_buffer]
    scores = [(value - config.worst) / (config.best - config.worst) for value in returns]
    active = seen.active_units[seen.steps > config.learning_starts].tolist()
    early = max(1, round(0.2 * config.steps / (config.steps / max(1, len(scores))))) - 1
    metrics = {
        "score": sum(scores) / len(scores),
        "final_score": _tail(scores, 3),
        "early_active_units": active[min(early, len(active) - 1)],
        "final_active_units": _tail(active, 3),
        **_switching(control, len(scores)),
        "updates": float(model._n_updates),
    }
    started = time.perf_counter()
    critic_active_units(model)
    probe = time.perf_counter() - started
    cost = {"seconds": seconds, "updates": float(model._n_updates), "milliseconds_per_look": 1000 * probe}
    curves = {"return": returns, "active_units": active, "updates": seen.updates.astype(float).tolist()}
    return Outcome(metrics, cost, curves)


def _make_agent(config: Acting, seed: int) -> Any:
    try:
        import stable_baselines3  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("this study needs Stable-Baselines3; pip install 'neuropil[rl]'") from None
    width = [config.hidden, config.hidden]
    return getattr(stable_baselines3, config.algorithm.upper())(
        config.policy, config.environment, learning_rate=config.lr, batch_size=config.batch_size,
        learning_starts=config.learning_starts, train_freq=1, gradient_steps=1, gamma=config.discount,
        buffer_size=max(1, min(config.steps, 100_000)), policy_kwargs={"net_arch": width}, seed=seed,
        stats_window_size=max(1, config.steps), device="cpu",
    )  # fmt: skip


def _images(trial: Trial, control: ReplayRatio) -> Outcome:
    config: Relabelled = trial.config
    images = data.load(config.dataset)
    generator = torch.Generator().manual_seed(trial.seed)
    order = torch.randperm(len(images.train), generator=generator)
    every = data.Arrays(images.train, images.train_labels)
    unseen = every.subset(order[-1500:])
    judge = unseen if trial.evaluate_on == "validation" else data.Arrays(images.test, images.test_labels)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.hidden), nn.ReLU(),
        nn.Linear(config.hidden, images.n_classes),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    active: list[float] = []
    updates, arrived, after_phase = 0, 0, []
    started = time.perf_counter()
    for phase, steps in enumerate((config.first_steps, config.second_steps)):
        begin = arrived
        labels = every.labels().clone()
        if phase == 0:
            wrong = torch.rand(len(labels), generator=generator) < config.wrong
            drawn = torch.randint(images.n_classes, labels.shape, generator=generator)
            labels = torch.where(wrong, drawn, labels)
        for _ in range(steps):
            arrived += config.arriving
            for _ in range(control.updates_due()):
                rows = order[torch.randint(begin, arrived, (config.batch_size,), generator=generator)]
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(functional.cross_entropy(model(every.gather(rows)[0]), labels[rows]))
                optimizer.step()
                updates += 1
            rows = order[torch.randint(begin, arrived, (256,), generator=generator)]
            active.append(fraction_active_units(model, every.gather(rows)[0]))
            control.observe(active[-1])
        with torch.no_grad():
            x, y = judge.gather(range(len(judge)))
            after_phase.append(float((model(x).argmax(-1) == y).float().mean()))
    metrics = {
        "score": after_phase[1],
        "final_score": after_phase[1],
        "relabelled_accuracy": after_phase[0],
        "early_active_units": active[len(active) // 5],
        "final_active_units": _tail(active, 10),
        **_switching(control, len(active)),
        "updates": float(updates),
    }
    cost = {"seconds": time.perf_counter() - started, "updates": float(updates)}
    return Outcome(metrics, cost, {"active_units_images": active})


def _switching(control: ReplayRatio, episodes: int) -> dict[str, float | None]:
    """Whether the ratio changed, and at which share of the episodes."""
    if not isinstance(control, AdaptiveReplayRatio):
        return {"switched": None, "switched_at": None}
    after = control.switched_after
    return {"switched": float(after is not None), "switched_at": None if after is None else after / episodes}


def _tail(values: Sequence[float], count: int) -> float:
    last = values[-count:]
    return sum(last) / len(last)


def _checksum(config: Acting | Relabelled) -> str:
    if isinstance(config, Relabelled):
        return data.load(config.dataset).checksum
    try:
        import gymnasium  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("adaptive-rr needs gymnasium: pip install 'neuropil[rl]'") from None
    if config.environment not in gymnasium.registry:
        name = config.environment[:40]
        raise UnknownNameError(f"environment: none is called {name!r}{nearest(name, gymnasium.registry)}")
    return config.environment


_RATES = (5e-4, 1e-3, 2e-3, 4e-3)

study = Study(
    id="adaptive-rr",
    summary=(
        "An agent that replays much from the start wears its critic out. This one begins with one update "
        "every second step, watches how many of the critic's units are active, and goes over to two a "
        "step when that has settled."
    ),
    citation="""@inproceedings{ma2024plasticity,
  title     = {Revisiting Plasticity in Visual Reinforcement Learning: Data, Modules and Training Stages},
  author    = {Ma, Guozheng and Li, Lu and Zhang, Sen and Liu, Zixuan and Wang, Zhen and Chen, Yixin and Shen, Li
               and Wang, Xueqian and Tao, Dacheng},
  booktitle = {International Conference on Learning Representations},
  year      = {2024}
}""",
    arms={
        "adaptive": Acting(),
        "scheduled": Acting(),
        "low": Acting(),
        "high": Acting(),
        "relabel-adaptive": Relabelled(),
        "relabel-low": Relabelled(),
        "relabel-high": Relabelled(),
    },
    search={
        "adaptive": {"lr": (2e-3, 4e-3), "interval": (1, 2)},
        "scheduled": {"lr": (2e-3, 4e-3), "switch_step": (600, 1000)},
        "low": {"lr": _RATES},
        "high": {"lr": _RATES},
        "relabel-adaptive": {"lr": (1e-3, 2e-3), "tolerance": (0.005, 0.01)},
        "relabel-low": {"lr": _RATES},
        "relabel-high": {"lr": _RATES},
    },
    trial=trial,
    data=_checksum,
    objective="score",
    tune_trials=4,
    claims=(
        exceeds(
            "adaptive.score", "low.score", by=0.05, primary=True,
            text="over its life the adaptive agent scores at least 0.05 more than one that always replays little",
        ),
        exceeds(
            "adaptive.score", "high.score", by=-0.05,
            text="it loses at most 0.05 to one that always replays much",
        ),
        exceeds(
            "adaptive.score", "scheduled.score", by=-0.05,
            text="it loses at most 0.05 to one that changes at a tuned step without looking",
        ),
        at_least("adaptive.switched", 0.9, text="it changes in every life"),
        exceeds(
            "low.early_active_units", "high.early_active_units", by=0.02,
            text="at a fifth of the life, replaying much has cost 0.02 of the critic's active units",
        ),
        exceeds(
            "low.final_active_units", "high.final_active_units", by=0.02,
            text="at the end, replaying much has cost 0.02 of the critic's active units",
        ),
        exceeds(
            "relabel-adaptive.score", "relabel-high.score", by=0.01,
            text="images first relabelled: many updates early cost a point of what is learned later",
        ),
    ),
    scales={
        "smoke": {
            "steps": 640, "learning_starts": 100, "hidden": 16, "batch_size": 16, "interval": 1, "switch_step": 300,
            "low": 0.05, "high": 0.2,
            "first_steps": 20, "second_steps": 10, "tolerance": 0.5,
        },
        "paper": {
            "steps": 1_000_000, "hidden": 1024, "batch_size": 256, "lr": 1e-4, "tolerance": 0.001, "interval": 50,
            "discount": 0.99, "learning_starts": 4000, "switch_step": 200_000,
        },
    },
    figures=(
        figures.MetricStrip("score", title="Mean score over the whole life"),
        figures.LearningCurves("return", title="Return", x_title="episode"),
        figures.LearningCurves(
            "active_units", title="Active units of the critic", x_title="episode after learning starts"
        ),
        figures.LearningCurves("updates", title="Updates made", x_title="episode"),
        figures.LearningCurves(
            "active_units_images", title="Active units while images are relabelled", x_title="step",
            y_title="active units",
        ),
        figures.CostBars(),
    ),
    notes=(
        "Swinging up a pendulum from its state is far from the published setting (images, a million "
        "steps, augmentation), and what replaying much costs there in the end does not show here: the arm"
        " that always replays much scores best. Its critic does end with fewer active units, as "
        "published. This is the second attempt. In the first, which had a narrower choice of rates for "
        "the adaptive arm (0.001 and 0.002) than for the others, the claim on the low arm was undecided "
        "(0.02, from -0.02 to 0.06) and both comparisons with arms that replay much sooner failed (-0.25 "
        "and -0.12): in ten episodes the change came after four to eight. Use the controller where early "
        "updates do harm; on easy tasks replay much from the start. It costs one forward pass of the "
        "critic per episode. Scores are mean returns of training, rescaled; there is no test set, and "
        "settings were chosen on other seeds. Images that are relabelled at first are the supervised "
        "cross-check."
    ),
)  # fmt: skip
