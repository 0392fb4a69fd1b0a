"""Neurons that learn their own constants, and spike trains told apart by their complexity.

Every claim holds on this run's seeds. Of the gain over the best fixed neurons (5.6 points), about two fifths is had
by fixed time constants that differ between neurons, and as much by learning the time constant alone. Complexity tells
trains of equal rate apart, and so does the share of bins with a spike in them, which is simpler.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from neuropil import data
from neuropil.bench import figures
from neuropil.bench.claim import at_least, exceeds
from neuropil.bench.overhead import overhead
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.nn import RateReadout, Sequential
from neuropil.spiking import LempelZivClassifier, MetaNeuron, ParametricLIF
from neuropil.spiking.lempel_ziv_classifier import complexities
from neuropil.training import Backprop, Plugin
from neuropil.training.plugin import Gradients

Array = np.ndarray[Any, Any]
LOGIT_SCALE = 10.0  # rates are small numbers: a softmax of them needs a scale to become certain
READ = 200  # samples whose hidden trains the complexity classifier learns from, and is judged on


@dataclass(frozen=True)
class NetworkSetting(Config):
    """A network of spiking neurons that tells how slowly the rate of its inputs switches."""

    samples: int = setting(800, "training samples", low=8)
    held_out: int = setting(400, "validation samples, and test samples", low=8)
    time_steps: int = setting(256, "steps of a sample", low=16)
    trains: int = setting(16, "input trains", low=1)
    rate: float = setting(0.1, "spikes per step of a train", low=0.01, high=0.4)
    hidden: int = setting(32, "hidden neurons", low=1)
    epochs: int = setting(12, "passes over the training samples", low=1)
    batch_size: int = setting(50, "samples per step", low=1)
    lr: float = setting(0.03, "first learning rate of Adam, which falls to zero as a cosine", low=0.0)


@dataclass(frozen=True)
class LeakySetting(NetworkSetting):
    """Leaky neurons."""

    tau: float = setting(5.0, "time constant in steps, or where it starts", low=0.5)
    spread: float = setting(
        1.0, "time constants are drawn from tau / spread to tau * spread, evenly in their logarithm", low=1.0
    )


@dataclass(frozen=True)
class SecondOrderSetting(NetworkSetting):
    """Meta neurons."""

    dt: float = setting(0.5, "length of a step in the neuron's own time", low=0.01, high=1.0)


@dataclass(frozen=True)
class TrainSetting(Config):
    """Single trains, alike in rate, told apart by one number each."""

    samples: int = setting(400, "training trains", low=8)
    held_out: int = setting(400, "validation trains, and test trains", low=8)
    time_steps: int = setting(2048, "steps of a train", low=16)
    rate: float = setting(0.1, "spikes per step", low=0.01, high=0.4)
    persistence: float = setting(
        0.5, "probability of a spike after a spike in the second class", low=0.0, high=1.0
    )
    bin_width: int = setting(1, "steps taken together: 1 where any of them has a spike", low=1)
    classifier: str = setting(
        "nearest", "how the number is read: nearest class mean, or logistic", choices=("nearest", "logistic")
    )


CONSTANTS = ("tau", "resistance", "threshold", "reset", "rest")
TIME_CONSTANTS = (0.0, 2.0, 8.0, 32.0)  # of the switching rate, in steps: the four classes


def switching(config: NetworkSetting, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Samples of the four classes; the mean rate of each sample varies by 30 % and tells nothing."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % len(TIME_CONSTANTS)
    rates = config.rate * (0.7 + 0.6 * torch.rand(samples, generator=generator))
    spikes = data.switching_spikes(
        rates, torch.tensor(TIME_CONSTANTS)[labels], config.time_steps, config.trains, generator=generator
    )
    return spikes, labels


def splits(sizes: tuple[int, int], seed: int, evaluate_on: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """(samples, seed) of the training data, and of what is judged: validation and test are drawn apart."""
    judged = {"validation": 1, "test": 2}[evaluate_on]
    return (sizes[0], 3 * seed), (sizes[1], 3 * seed + judged)


def make_cell(arm: str, config: Any) -> nn.Module:
    """The hidden neurons of an arm."""
    if isinstance(config, SecondOrderSetting):
        return MetaNeuron(dt=config.dt, learn=arm == "learned_meta", features=config.hidden)
    drawn = config.spread ** (2 * torch.rand(config.hidden) - 1)
    tau = config.tau * drawn
    learned: dict[str, tuple[str, ...]] = {"learned_lif": CONSTANTS, "learned_tau": ("tau",)}
    # a resistance at which one input spike moves the membrane by its weight, whatever the time constant
    return ParametricLIF(
        tau, 1 / (1 - torch.exp(-1 / tau)), learn=learned.get(arm, ()), features=config.hidden
    )


def make_network(arm: str, config: Any) -> Sequential:
    """One hidden layer of spiking neurons and a linear readout of their rates."""
    enter = nn.Linear(config.trains, config.hidden)
    with torch.no_grad():
        enter.weight.mul_(2)
    leave = nn.Linear(config.hidden, len(TIME_CONSTANTS))
    return Sequential(enter, make_cell(arm, config), leave, RateReadout())


def scaled_loss(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of scaled rates."""
    return nn.functional.cross_entropy(LOGIT_SCALE * output, target)


class SmallSteps(Plugin):
    """Gradients no longer than 1: a second-order neuron now and then has a step at which they explode."""

    def on_gradients(self, gradients: Gradients) -> Gradients:
        """The gradients, all shortened alike."""
        length = torch.stack([g.norm() for g in gradients.values()]).norm()
        return {name: g / length.clamp_min(1.0) for name, g in gradients.items()}


def network_trial(trial: Trial) -> Outcome:
    """Train a network, then read its hidden trains once more by their complexity and by their counts."""
    config = trial.config
    learned, judged = splits((config.samples, config.held_out), trial.seed, trial.evaluate_on)
    (x, y), (x_test, y_test) = switching(config, *learned), switching(config, *judged)
    torch.manual_seed(trial.seed)
    net = make_network(trial.arm, config)
    optimizer = torch.optim.Adam(net.parameters(), lr=config.lr)
    learner = Backprop(net, optimizer, loss=scaled_loss, plugins=[SmallSteps()])
    order = torch.Generator().manual_seed(trial.seed)
    losses = []
    steps = config.epochs * -(-len(y) // config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(config.epochs):
        for rows in torch.randperm(len(y), generator=order).split(config.batch_size):
            losses.append(learner.update(data.Batch(x[:, rows], y[rows]))["loss"])
            schedule.step()
    with torch.no_grad():
        acc = float((net(x_test).argmax(-1) == y_test).double().mean())
        seen, shown = hidden_trains(net, x[:, :READ]), hidden_trains(net, x_test[:, :READ])
    metrics: dict[str, float | None] = {"acc": acc, "hidden_rate": float(shown.mean())}
    if trial.evaluate_on == "validation":
        return Outcome(metrics)
    labels, wanted = y[:READ].numpy(), y_test[:READ].numpy()
    reader = LempelZivClassifier().fit(seen, labels)
    metrics["acc_by_complexity"] = float(reader.score(shown, wanted))
    metrics["acc_by_count"] = nearest_mean(seen.mean(1), labels, shown.mean(1), wanted)
    cost = _cost(trial.arm, net, config, (x, y), reader, shown)
    return Outcome(metrics, cost, {"loss": _thin(losses)}, {"raster": _raster(shown[3])})


def nearest_mean(x: Array, y: Array, x_test: Array, y_test: Array) -> float:
    """Accuracy of the nearest class mean, features in their pooled standard deviation within classes."""
    labels = np.unique(y)
    means = np.stack([x[y == label].mean(0) for label in labels])
    scale = np.sqrt(np.mean((x - means[np.searchsorted(labels, y)]) ** 2, 0) + 1e-12)
    distances = (((x_test[:, None] - means) / scale) ** 2).sum(-1)
    return float((labels[distances.argmin(1)] == y_test).mean())


def hidden_trains(net: Sequential, x: Tensor) -> Array:
    """Spikes of the hidden layer, `[samples, time, neurons]`."""
    return np.asarray(net[1](net[0](x))[0].transpose(0, 1).numpy())


def _cost(
    arm: str,
    net: Sequential,
    config: Any,
    samples: tuple[Tensor, Tensor],
    classifier: LempelZivClassifier,
    shown: Array,
) -> dict[str, float]:
    """Time of a training step over that of the same network with fixed constants; of an answer by complexity."""
    plain = "fixed_meta" if isinstance(config, SecondOrderSetting) else "fixed_lif"
    batch = data.Batch(samples[0][:, : config.batch_size], samples[1][: config.batch_size])

    def stepper(name: str) -> Callable[[], object]:
        twin = make_network(name, config)
        learner = Backprop(twin, torch.optim.Adam(twin.parameters(), lr=config.lr), loss=scaled_loss)
        return lambda: learner.update(batch)

    classifier.predict(shown[:1])
    began = time.perf_counter()
    classifier.predict(shown)
    read = (time.perf_counter() - began) / len(shown)
    parameters = float(sum(p.numel() for p in net.parameters()))
    return {
        "overhead": overhead(stepper(plain), stepper(arm)),
        "milliseconds_by_complexity": 1000 * read,
        "parameters": parameters,
    }


def _raster(spikes: Array) -> dict[str, Any]:
    times, neurons = spikes.nonzero()
    return {
        "layer": "hidden", "times": times.tolist(), "neurons": neurons.tolist(),
        "time_steps": spikes.shape[0], "n_neurons": spikes.shape[1],
    }  # fmt: skip


def _thin(values: list[float], points: int = 100) -> list[float]:
    size = max(1, -(-len(values) // points))
    return [sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)]


def pairs(trains: Array) -> Array:
    """Share of steps with a spike that follows a spike: what differs between the classes, known beforehand."""
    return np.asarray((trains[:, 1:] * trains[:, :-1]).mean(1, keepdims=True))


NUMBERS: dict[str, Callable[[Array, Array], Array]] = {  # of trains, and of trains in bins
    "complexity": lambda trains, binned: complexities(binned, "entropy"),
    "plain_complexity": lambda trains, binned: complexities(binned, "length"),
    "count": lambda trains, binned: np.asarray(trains.mean(1, keepdims=True)),
    "occupied": lambda trains, binned: np.asarray(binned.mean(1, keepdims=True)),
    "pairs": lambda trains, binned: pairs(binned),
}


def train_trial(trial: Trial) -> Outcome:
    """Describe each train by one number and classify that."""
    config: TrainSetting = trial.config

    def described(samples: int, seed: int) -> tuple[Array, Array]:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(samples) % 2
        stay = torch.where(labels == 1, config.persistence, config.rate)
        rates = torch.full((samples,), config.rate)
        spikes = data.markov_spikes(rates, stay, config.time_steps, generator=generator).T
        whole = config.time_steps // config.bin_width * config.bin_width
        binned = spikes[:, :whole].reshape(samples, -1, config.bin_width).amax(-1)
        return NUMBERS[trial.arm](spikes.numpy(), binned.numpy()), labels.numpy()

    learned, judged = splits((config.samples, config.held_out), trial.seed, trial.evaluate_on)
    (x, y), (x_test, y_test) = described(*learned), described(*judged)
    if config.classifier == "nearest":
        acc = nearest_mean(x, y, x_test, y_test)
    else:
        acc = float(make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y).score(x_test, y_test))
    return Outcome({"acc": acc})


def trial(trial: Trial) -> Outcome:
    """One arm of either half of the study."""
    return train_trial(trial) if isinstance(trial.config, TrainSetting) else network_trial(trial)


_RATES, _READERS = (0.02, 0.03), {"bin_width": (1, 2, 4, 8), "classifier": ("nearest", "logistic")}

study = Study(
    id="meta-neuron",
    summary=(
        "Neurons learn their own constants together with the weights, and tell temporal patterns apart that neurons "
        "of one fixed kind do not; and spike trains of equal rate are told apart by how complex they are."
    ),
    citation="""@article{metaneuron2025,
  title   = {Learning Internal Biological Neuron Parameters and Complexity-Based Encoding for Improved Spiking Neural
             Networks Performance},
  year    = {2025},
  journal = {arXiv preprint}
}""",
    arms={
        "learned_lif": LeakySetting(),
        "learned_tau": LeakySetting(),
        "fixed_lif": LeakySetting(),
        "mixed_lif": LeakySetting(spread=5.0),
        "learned_meta": SecondOrderSetting(),
        "fixed_meta": SecondOrderSetting(),
        "complexity": TrainSetting(),
        "plain_complexity": TrainSetting(),
        "count": TrainSetting(),
        "occupied": TrainSetting(bin_width=8),
        "pairs": TrainSetting(),
    },
    search={
        "learned_lif": {"lr": _RATES, "tau": (2.0, 5.0, 10.0, 20.0)},
        "learned_tau": {"lr": _RATES, "tau": (2.0, 5.0, 10.0, 20.0)},
        "fixed_lif": {"lr": _RATES, "tau": (2.0, 5.0, 10.0, 20.0)},
        "mixed_lif": {"lr": _RATES, "tau": (5.0, 10.0), "spread": (3.0, 5.0)},
        "learned_meta": {"lr": _RATES, "dt": (0.25, 0.5, 0.75, 1.0)},
        "fixed_meta": {"lr": _RATES, "dt": (0.25, 0.5, 0.75, 1.0)},
        "complexity": _READERS,
        "plain_complexity": _READERS,
        "count": _READERS,
        "occupied": _READERS,
        "pairs": _READERS,
    },
    seeds=12,
    first_seed=20,
    trial=trial,
    claims=(
        exceeds(
            "learned_lif.acc", "fixed_lif.acc", by=0.025, primary=True,
            text="learning the neurons' constants gains at least 2.5 points over the best fixed ones",
        ),
        exceeds(
            "learned_lif.acc", "mixed_lif.acc", by=0.0,
            text="learned constants beat fixed time constants that differ between neurons",
        ),
        exceeds(
            "learned_meta.acc", "fixed_meta.acc", by=0.03,
            text="learning a meta neuron's dynamics gains at least 3 points over the best fixed ones",
        ),
        at_least(
            "complexity.acc", 0.97,
            text="complexity tells trains of equal rate apart in at least 97 % of cases",
        ),
        exceeds("complexity.acc", "count.acc", by=0.3, text="and is 30 points or more above counting spikes"),
        exceeds(
            "complexity.acc", "occupied.acc", by=-0.02,
            text="complexity is within 2 points of the share of steps near a spike, a plain measure of bursts",
        ),
    ),
    scales={
        "smoke": {
            "samples": 64, "held_out": 32, "learned_lif.time_steps": 40, "learned_tau.time_steps": 40,
            "fixed_lif.time_steps": 40, "mixed_lif.time_steps": 40, "learned_meta.time_steps": 40,
            "fixed_meta.time_steps": 40, "complexity.time_steps": 256, "plain_complexity.time_steps": 256,
            "count.time_steps": 256, "occupied.time_steps": 256, "pairs.time_steps": 256, "epochs": 1, "hidden": 8,
        },
        "paper": {"samples": 8000, "held_out": 2000, "epochs": 50},
    },
    figures=(
        figures.LearningCurves("loss", title="Training loss", x_title="share of training, %"),
        figures.SpikeRaster(),
        figures.MetricStrip("acc", title="Accuracy"),
        figures.MetricStrip("acc_by_complexity", title="Accuracy when hidden trains are read by complexity"),
        figures.MetricStrip("acc_by_count", title="Accuracy when hidden trains are read by count"),
    ),
    notes=(
        "This is the third run, each on fresh seeds. In the first, of eight, rates of learning stayed as they were to "
        "the end: networks chosen on two development seeds broke down on others (learned constants 47 to 91 %), and "
        "the primary claim was undecided (0.7 points, -8.3 to 9.7, 3 asked for); now they fall as a cosine in every "
        "arm. And spikes were counted after they had been put into bins, one for each bin with any: that count, kept "
        "as occupied, tells bursts as well as complexity does. The second, of twelve, came to no end, as gradients of "
        "two networks of learned meta neurons exploded; now every arm's gradients are cut to a norm of 1. "
        "The networks tell four classes of 16 trains apart that share a rate which switches every 2, 8 or 32 steps or "
        "never; the mean rate varies by 30 % in every class. Fixed neurons choose their time constant on "
        "development seeds (for the second-order neuron, its step), and all arms the learning rate; the paper's gain "
        "is over one fixed setting. All neurons start alike but those of mixed_lif. The meta neuron's equations and "
        "its probabilistic firing are reconstructed from the literature on meta-dynamic neurons, and firing is "
        "deterministic here; pair STDP as a training rule is left out. The other half reads single trains of one "
        "rate, in one class of which a spike follows a spike every other time, by one number each: complexity over "
        "the entropy of the train's own symbols, plain complexity, the count, and the pairs of neighbouring spikes, "
        "which a reader who knows what differs would count. Use learned constants where the time scales of a task "
        "are unknown or several; a training step costs what the overhead column says. Use complexity for trains "
        "whose structure is unknown; where it is known, a count of that structure is simpler and no worse."
    ),
)  # fmt: skip
