"""What and when: a spiking reservoir predicts which event follows a cue and at what time, and follows changes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from neuropil.bench import figures
from neuropil.bench.claim import at_least, exceeds
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.nn import Izhikevich, Recurrent
from neuropil.spiking.ridge import rls_step
from neuropil.spiking.what_when import MEETBlock, MEETTask, WhatWhenReadout

Array = np.ndarray[Any, Any]
SAMPLE = 10  # steps of half a millisecond between two looks at the reservoir: 5 ms
TIMES = (
    (40, 70),
    (60, 30),
)  # looks after the cue at which event 0 and 1 occur, first and after the last switch
BLOCKS = ((0.8, TIMES[0]), (0.2, TIMES[0]), (0.2, TIMES[1]))  # probability of event 0, and times
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
NEAR, WIDTH = (
    3,
    4.0,
)  # looks on either side of an event that its amplitude is averaged over; width of the bump


@dataclass(frozen=True)
class ReservoirSetting(Config):
    """Settings of the reservoir and the task."""

    neurons: int = setting(200, "Izhikevich neurons, four of five excitatory", low=20)
    looks: int = setting(100, "looks of 5 ms that a trial takes", low=80)
    trials: int = setting(100, "trials of a block", low=1)
    runs: int = setting(24, "noisy runs of the reservoir that trials are drawn from", low=6)
    recurrence: float = setting(
        0.5, "largest excitatory weight; inhibitory ones are four times that", low=0.0
    )
    noise: float = setting(0.1, "standard deviation of membranes at the cue, millivolts", low=0.0)


@dataclass(frozen=True)
class LocalSetting(ReservoirSetting):
    """Settings of the local rules."""

    what_lr: float = setting(0.05, "rate of the probabilities", low=1e-4, high=1.0)
    when_lr: float = setting(0.3, "rate of the times", low=1e-4, high=1.0)


@dataclass(frozen=True)
class RLSSetting(ReservoirSetting):
    """Settings of one readout for both, by recursive least squares."""

    alpha: float = setting(1.0, "penalty", low=1e-9)
    every: int = setting(2, "looks between two steps of learning", low=1)
    memory: float = setting(100.0, "trials after which a trial counts a third, with forgetting", low=1.0)


@cache
def reservoir(config: ReservoirSetting, seed: int) -> Array:
    """Filtered spikes after the cue, `[runs, looks, neurons]`; the runs differ by noise in the membranes."""
    draw = torch.Generator().manual_seed(seed)
    n, steps = config.neurons, config.looks * SAMPLE
    excites, rho = torch.arange(n) < 0.8 * n, torch.rand(n, generator=draw)
    cells = Izhikevich(
        torch.where(excites, torch.tensor(0.02), 0.02 + 0.08 * rho),
        torch.where(excites, torch.tensor(0.2), 0.25 - 0.05 * rho),
        torch.where(excites, -65 + 15 * rho**2, torch.tensor(-65.0)),
        torch.where(excites, 8 - 6 * rho**2, torch.tensor(2.0)), features=n,
    )  # fmt: skip
    weights = nn.Linear(n, n, bias=False)
    there = torch.rand(n, n, generator=draw) < 0.1
    strength = config.recurrence * torch.rand(n, n, generator=draw) * torch.where(excites, 1.0, -4.0)
    into, steady = 15 * torch.rand(n, generator=draw), 4.5 * torch.rand(n, generator=draw)
    x = steady.expand(steps, config.runs, n).clone()
    x[:40] += into  # a cue of 20 ms
    network = Recurrent(cells, weights)
    with torch.no_grad():
        weights.weight.copy_(there * strength)
        state = network.initial_state(x)
        noise = config.noise * torch.randn(config.runs, n, generator=draw)
        cell = state.cell._replace(membrane=state.cell.membrane + noise)
        spikes = network(x, state._replace(cell=cell))[0]
    rate, looks = torch.zeros(config.runs, n), []
    for step in range(steps):
        rate = rate * float(np.exp(-0.5 / 50)) + spikes[step]  # 50 ms
        if step % SAMPLE == SAMPLE - 1:
            looks.append(rate)
    found: Array = torch.stack(looks, 1).double().numpy()
    return found


class MergedReadout:
    """One readout for both, by recursive least squares: the bump of what occurred, silence for what did not."""

    def __init__(self, units: int, config: RLSSetting, forgetting: bool) -> None:
        self.inverse, self.weight = np.eye(units) / config.alpha, np.zeros((units, 2))
        self.every = config.every
        per_trial = max(1, config.looks // self.every)
        self.forgetting = float(np.exp(-1 / (config.memory * per_trial))) if forgetting else 1.0

    def partial_fit(self, X: Array, y: Array) -> None:
        """Learn from trials in their order."""
        for trial, (event, step) in zip(X, y, strict=True):
            for t in range(0, len(trial), self.every):
                target = np.zeros(2)
                target[int(event)] = np.exp(-0.5 * ((t - step) / WIDTH) ** 2)
                rls_step(self.inverse, self.weight, trial[t], target, self.forgetting)

    def predict(self, X: Array) -> Array:
        """`[trials, time, events]`."""
        found: Array = X @ self.weight
        return found


def make_readout(arm: str, config: Any, units: int) -> Any:
    """A readout that has learned nothing."""
    if arm.startswith("rls"):
        return MergedReadout(units, config, arm == "rls_forgetting")
    return WhatWhenReadout(
        2,
        what_lr=config.what_lr,
        when_lr=config.when_lr,
        width=WIDTH,
        gate="window" if arm == "local" else "open",
    )


def amplitudes(answer: Array, times: tuple[int, int]) -> tuple[float, float]:
    """Mean of the answer `[runs, time, events]` around each event's time, over what a bump of one would have there."""
    full = np.exp(-0.5 * (np.arange(-NEAR, NEAR + 1) / WIDTH) ** 2).mean()
    a, b = (float(answer[:, t - NEAR : t + NEAR + 1, c].mean() / full) for c, t in enumerate(times))
    return a, b


def trial(trial: Trial) -> Outcome:
    """One readout on one reservoir through all blocks; it is tested by the cue alone, on runs that it never saw."""
    config: Any = trial.config
    common = ReservoirSetting(
        **{name: getattr(config, name) for name in ReservoirSetting.__dataclass_fields__}
    )
    activity = reservoir(common, trial.seed)
    apart = max(2, config.runs // 4)
    seen, unseen = activity[: -2 * apart], activity[-apart:]
    if trial.evaluate_on == "validation":
        unseen = activity[-2 * apart : -apart]
    draw = np.random.default_rng(trial.seed)
    readout = make_readout(trial.arm, config, config.neurons)
    errors, shares, curve, seconds = [], [], [], 0.0
    answers = []
    for place, (probability, times) in enumerate(BLOCKS):
        block = MEETBlock(probability, times, config.trials)
        told = MEETTask([block], time=config.looks, seed=1000 * trial.seed + place).outcomes.numpy()
        runs = seen[draw.integers(0, len(seen), len(told))]
        for part in np.array_split(np.arange(len(told)), 10):
            started = time.perf_counter()
            if len(part):
                readout.partial_fit(runs[part], told[part])
            seconds += time.perf_counter() - started
            a, b = amplitudes(readout.predict(unseen), times)
            curve.append(_share(a, b))
        errors.append((abs(a - probability) + abs(b - (1 - probability))) / 2)
        shares.append(_share(a, b))
        answers.append(readout.predict(unseen).mean(0))
    metrics: dict[str, float | None] = {
        "tracking": 1 - sum(errors) / len(errors),
        "share_before": shares[0],
        "share_after": shares[1],
        "switch_error": abs(shares[1] - BLOCKS[1][0]),
        "amplitude": amplitudes(answers[0][None], TIMES[0])[0],
        "retimed_error": errors[2],
    }
    if trial.evaluate_on == "test" and trial.arm in ("local", "ungated"):
        metrics["pearson"] = _pearson(trial.arm, config, seen, unseen, trial.seed)
    cost = {"milliseconds_per_trial": 1000 * seconds / (len(BLOCKS) * config.trials)}
    curves = {"share": curve, "event_0": answers[1][:, 0].tolist(), "event_1": answers[1][:, 1].tolist()}
    return Outcome(metrics, cost, curves, {"raster": _raster(activity[0])})


def _share(a: float, b: float) -> float:
    """Share of the amplitude that is event 0's; one half where there is none."""
    a, b = max(a, 0.0), max(b, 0.0)
    return a / (a + b) if a + b > 1e-9 else 0.5


def _pearson(arm: str, config: Any, seen: Array, unseen: Array, seed: int) -> float | None:
    """Correlation over levels of probability with the amplitude of event 0, each learned from the beginning."""
    draw, found = np.random.default_rng([seed, 1]), []
    for place, level in enumerate(LEVELS):
        block = MEETBlock(level, TIMES[0], config.trials)
        told = MEETTask([block], time=config.looks, seed=1000 * seed + 100 + place).outcomes.numpy()
        readout = make_readout(arm, config, config.neurons)
        readout.partial_fit(seen[draw.integers(0, len(seen), len(told))], told)
        found.append(amplitudes(readout.predict(unseen), TIMES[0])[0])
    return float(np.corrcoef(LEVELS, found)[0, 1]) if np.std(found) > 0 else None


def _raster(activity: Array) -> dict[str, Any]:
    """When filtered spikes of a run rose, look by look."""
    rises = np.diff(activity, axis=0, prepend=0) > 0
    times, neurons = np.nonzero(rises)
    return {
        "layer": "reservoir", "times": times.tolist(), "neurons": neurons.tolist(),
        "time_steps": len(activity), "n_neurons": activity.shape[1],
    }  # fmt: skip


_LOCAL = {"what_lr": (0.03, 0.05, 0.1), "when_lr": (0.1, 0.3, 0.6)}

study = Study(
    id="what-when",
    summary=(
        "One readout of a spiking reservoir learns how likely an event is, another when it occurs, by local rules. "
        "Their product follows a sudden change of the odds, which one merged least-squares readout averages away."
    ),
    citation="""@article{whatwhen2026,
  title   = {Joint encoding of "what" and "when" predictions through error-modulated plasticity in reservoir spiking
             networks},
  journal = {Communications Biology},
  year    = {2026}
}""",
    arms={
        "local": LocalSetting(),
        "ungated": LocalSetting(),
        "rls": RLSSetting(),
        "rls_forgetting": RLSSetting(),
    },
    search={
        "local": _LOCAL,
        "ungated": _LOCAL,
        "rls": {"alpha": (0.01, 0.1, 1.0, 10.0), "every": (2, 4)},
        "rls_forgetting": {"alpha": (0.1, 1.0), "memory": (10.0, 30.0, 100.0, 300.0)},
    },
    trial=trial,
    objective="tracking",
    seeds=8,
    claims=(
        exceeds(
            "local.tracking", "rls.tracking", by=0.12, primary=True,
            text="over switches of odds and times, amplitudes of the local rules are 0.12 nearer to the probabilities "
            "than those of one least-squares readout",
        ),
        exceeds(
            "rls.switch_error", "local.switch_error", by=0.1,
            text="after the odds have turned, an event's share of the amplitude is 0.1 nearer to them",
        ),
        at_least("local.pearson", 0.9, text="amplitude follows probability over five levels (correlation 0.9)"),
        at_least(
            "local.tracking", 0.85, text="over all switches, amplitudes are within 0.15 of the probabilities"
        ),
        exceeds(
            "local.amplitude", "ungated.amplitude", by=0.3,
            text="without the gate, the amplitude of a likely event is lower by 0.3",
        ),
        exceeds(
            "local.tracking", "rls_forgetting.tracking", by=0.0,
            text="the local rules follow switches better than least squares that forget",
        ),
    ),
    scales={"smoke": {"neurons": 40, "trials": 10, "runs": 8, "looks": 80}, "paper": {"neurons": 1000, "runs": 60}},
    figures=(
        figures.LearningCurves(
            "share", title="Through two switches", x_title="tenths of a block (1 to 10: 0.8; then 0.2; then new times)",
            y_title="share of event 0", caption="The odds turn after 10, the times change after 20.",
        ),
        figures.LearningCurves(
            "event_0", title="Prediction of the rarer event", x_title="time after the cue (5 ms)", y_title="amplitude",
        ),
        figures.LearningCurves(
            "event_1", title="Prediction of the likelier event", x_title="time after the cue (5 ms)",
            y_title="amplitude",
        ),
        figures.SpikeRaster(),
        figures.MetricStrip("tracking", title="How near amplitudes are to probabilities"),
    ),
    notes=(
        "The reservoir is smaller than the published one and its output is not fed back; readouts look every 5 ms. "
        "Trials draw from 24 noisy runs of the reservoir, tests use runs of their own. Amplitudes are means around "
        "an event's time over what a full bump has there; outside its window the timing readout is not constrained."
    ),
)  # fmt: skip
