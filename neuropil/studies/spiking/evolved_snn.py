"""Evolved spiking controllers that integrate: 40 neurons find a force that nobody tells them.

The paper's finding that shifted thresholds integrate where plain neurons fail did not reproduce: both remove about
half of silence's loss (the difference is -0.02, -0.13 to 0.10), and recurrent neurons, which the paper found worse on
the fast part, have the best mean (0.57; over plain ones undecided, 0.08, -0.02 to 0.18). A linear readout of leaky
traces finds the integral exactly.

To mimic logs is not to fly. In closed loop (`neuropil.data.blimp_altitude`, a force of up to 0.5 m/s^2, 15 seconds,
four flights), networks of 20 and 20 neurons that evolved on the fast part alone, 600 or 1500 generations of 24, were
5.1 to 5.5 metres off on average, where silence is 6.4, a proportional command 0.9 and the controller that they mimic
0.3: the error's slope, which alone keeps the blimp from swinging, is what they catch least of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge

from neuropil.bench import figures
from neuropil.bench.claim import at_least, exceeds
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.data import PIDEpisodes, pid_episodes
from neuropil.spiking import SpikingControllerRegressor
from neuropil.spiking.evolved_snn import mimicry_loss

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class EpisodeSetting(Config):
    """Episodes of altitude keeping that a controller learns from."""

    episodes: int = setting(60, "episodes to learn from", low=2)
    held_out: int = setting(60, "validation episodes, and test episodes", low=2)
    steps: int = setting(450, "steps of an episode, ten a second", low=10)
    hold: int = setting(150, "steps between changes of altitude and force", low=2)


@dataclass(frozen=True)
class EvolvedSetting(EpisodeSetting):
    """Settings of evolution."""

    neurons: int = setting(20, "neurons of the encoding layer, and of the hidden one", low=2)
    evaluations: int = setting(16000, "controllers tried in all: generations times population", low=8)
    population: int = setting(32, "controllers of a generation", low=4)
    sigma: float = setting(0.3, "first width of the search, as a share of every range", low=0.01, high=1.0)


@dataclass(frozen=True)
class TraceSetting(EpisodeSetting):
    """A linear readout of leaky traces of the error: no spikes, no evolution."""

    traces: int = setting(20, "leaky traces, time constants spread from 1 step to the longest", low=1)
    longest: float = setting(100.0, "longest time constant in steps", low=1.0)
    penalty: float = setting(1.0, "ridge penalty", low=0.0)


def leaky_traces(errors: Array, config: TraceSetting) -> Array:
    """Traces `[episodes, steps, traces]` of errors `[episodes, steps]`."""
    decay = np.exp(-1 / np.geomspace(1, config.longest, config.traces))
    now, found = np.zeros((len(errors), config.traces)), []
    for column in errors.T:
        now = decay * now + column[:, None]
        found.append(now)
    return np.stack(found, 1)


def answers(trial: Trial, part: str, learned: PIDEpisodes, judged: PIDEpisodes) -> tuple[Array, list[float]]:
    """Commands on the judged episodes by a controller that learned to mimic `fast` or `slow`; losses on the way."""
    config, wanted = trial.config, getattr(learned, part)
    if isinstance(config, TraceSetting):
        model = Ridge(config.penalty, fit_intercept=False)
        model.fit(leaky_traces(learned.errors, config).reshape(-1, config.traces), wanted.ravel())
        said = model.predict(leaky_traces(judged.errors, config).reshape(-1, config.traces))
        return said.reshape(judged.errors.shape), []
    model = SpikingControllerRegressor(
        config.neurons,
        trial.arm,  # type: ignore[arg-type]
        generations=max(1, config.evaluations // config.population),
        population=config.population,
        sigma=config.sigma,
        # so that what integrates is the hidden layer, not the readout
        longest_readout=0.3 if part == "slow" else 1.0,
        random_state=trial.seed,
    )
    model.fit(learned.errors, wanted)
    return model.predict(judged.errors), model.loss_curve_


def correlation(said: Array, wanted: Array) -> float:
    """Mean Pearson correlation over episodes, 0 where an answer never changes."""
    error = np.abs(said - wanted).mean()
    return float(1 - (mimicry_loss(said, wanted) - error))


def trial(trial: Trial) -> Outcome:
    """Mimic the integral; where it counts, the proportional and derivative part as well."""
    config = trial.config
    judge = {"validation": 1, "test": 2}[trial.evaluate_on]
    learned, judged = (
        pid_episodes(count, config.steps, hold=config.hold, random_state=3 * trial.seed + place)
        for count, place in ((config.episodes, 0), (config.held_out, judge))
    )
    metrics: dict[str, float | None] = {}
    curves: dict[str, list[float]] = {}
    shown: dict[str, list[float]] = {}
    for part in ("slow",) if trial.evaluate_on == "validation" else ("slow", "fast"):
        said, losses = answers(trial, part, learned, judged)
        wanted = getattr(judged, part)
        silent = float(mimicry_loss(np.zeros_like(wanted), wanted))
        metrics[f"{part}_loss"] = float(mimicry_loss(said, wanted))
        metrics[f"{part}_correlation"] = correlation(said, wanted)
        metrics[f"{part}_gain"] = 1 - float(mimicry_loss(said, wanted)) / silent
        if losses:
            curves[f"{part}_loss"] = _thin(losses)
        shown[f"{part}_said"], shown[f"{part}_wanted"] = said[0].tolist(), wanted[0].tolist()
    metrics["acc"] = metrics["slow_gain"]
    curves["slow_command"] = shown["slow_said"][:: max(1, config.steps // 150)]
    return Outcome(metrics, {}, curves)


def _thin(values: list[float], points: int = 100) -> list[float]:
    size = max(1, -(-len(values) // points))
    return [sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)]


_SEARCH = {"sigma": (0.2, 0.3), "population": (20, 32)}

study = Study(
    id="evolved-snn",
    summary=(
        "Two layers of twenty spiking neurons evolve to give the commands of a PID controller: what has to be added up "
        "over time is added up by thresholds and membranes."
    ),
    citation="""@article{burgers2023evolving,
  title   = {Evolving Spiking Neural Networks to Mimic PID Control for Autonomous Blimps},
  author  = {Burgers, Tim and Stroobants, Stein and de Croon, Guido C. H. E.},
  journal = {arXiv preprint arXiv:2309.12937},
  year    = {2023}
}""",
    arms={
        "iwta": EvolvedSetting(),
        "lif": EvolvedSetting(),
        "recurrent": EvolvedSetting(),
        "recurrent_iwta": EvolvedSetting(),
        "traces": TraceSetting(),
    },
    search={
        "iwta": _SEARCH,
        "lif": _SEARCH,
        "recurrent": _SEARCH,
        "recurrent_iwta": _SEARCH,
        "traces": {"longest": (100.0, 1000.0), "penalty": (0.1, 1.0)},
    },
    tune_trials=4,
    seeds=8,
    trial=trial,
    claims=(
        at_least(
            "iwta.slow_gain", 0.35, primary=True,
            text="shifted thresholds mimic the integral with at least 35 % less loss than silence",
        ),
        exceeds(
            "iwta.slow_gain", "lif.slow_gain", by=0.05,
            text="shifted thresholds integrate better than plain neurons by at least 5 % of silence's loss",
        ),
        exceeds(
            "recurrent.slow_gain", "lif.slow_gain", by=0.0,
            text="recurrent neurons integrate better than plain ones",
        ),
        at_least(
            "lif.fast_gain", 0.2,
            text="plain neurons mimic the proportional and derivative part with at least 20 % less loss than silence",
        ),
        exceeds(
            "traces.slow_gain", "iwta.slow_gain", by=0.2,
            text="a linear readout of leaky traces, without spikes, mimics the integral far better",
        ),
    ),
    scales={
        "smoke": {"episodes": 4, "held_out": 3, "steps": 60, "hold": 30, "neurons": 4, "evaluations": 200},
        "paper": {"neurons": 40, "evaluations": 2500000, "population": 50, "episodes": 100, "steps": 2500, "hold": 500},
    },
    figures=(
        figures.LearningCurves(
            "slow_loss", title="Evolution: best loss on the integral", x_title="share of generations, %"
        ),
        figures.LearningCurves(
            "slow_command", title="What is answered in one episode", x_title="time, in steps of 0.3 s",
            y_title="integral command", caption="The mean over seeds is of different episodes; each thin line is one.",
        ),
        figures.MetricStrip("slow_gain", title="Integral: loss below silence's"),
        figures.MetricStrip("slow_correlation", title="Integral: correlation"),
        figures.MetricStrip("fast_gain", title="Proportional and derivative: loss below silence's"),
        figures.MetricStrip("fast_correlation", title="Proportional and derivative: correlation"),
    ),
    notes=(
        "Learned and judged on a simulated double integrator under PID control, with a lag and a limit of the motor, "
        "in episodes of 45 s in which altitude and force change twice; the blimp and its logs are not there, and the "
        "loop is not closed. Half the paper's neurons, 16,000 evaluations instead of 2.5 million, separable CMA-ES. "
        "The loss is the paper's: mean absolute error plus one minus the correlation; silence's share of it that is "
        "removed is what the claims are about. How the paper shares hidden weights could not be read in full: here "
        "each hidden neuron hears its own pair. Thresholds start near 1, for in mid-range they silence the network "
        "and evolution stays there. On development seeds plain neurons whose membrane decay may come close to 1 "
        "integrated about as well as those with shifted thresholds, where the paper's failed; so the primary claim "
        "is against silence. Use it where only spikes can be run; a linear filter is better "
        "everywhere else. Evolving one takes a few seconds, running it 40 neurons a step."
    ),
)  # fmt: skip
