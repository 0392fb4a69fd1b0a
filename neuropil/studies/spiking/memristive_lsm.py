"""Memristive liquid: random devices turn events into spike counts, and only small heads learn.

Handwritten digits move before a simulated event camera; brightening events of 32 x 32 pixels, 2 x 2 pooled, are the 256
inputs of 200 neurons for 50 steps. The second modality, in place of recorded speech, is another set of digits (8 x 8,
scikit-learn) scanned row by row into eight channels. Its labels are the same ten classes and its samples other
digits, by other hands. Device constants are modelling choices (half of the devices formed, lognormal), weights are
scaled to the firing rate: constants of the paper's code leave the liquid silent on these events.

What held and what did not: counts of the liquid are read 1.6 points better than counts of raw events, but 12 seeds do
not put that beyond the margin of one point (0.4 to 2.9), so the primary claim is undecided. Where the order of events
matters, the scanned digits, the liquid is 32 points ahead. Random devices cost nothing against ideal weights, nor does
five percent of read noise. But recurrent connections add nothing either (`feedforward`): it is leaky neurons behind
random weights that do the work. And plain counts in five or eight bins of time (`binned`), five or eight times the
inputs and no liquid, are better on both modalities. The multiplications of training are counted, not timed: the same
network through time against the heads and one pass through the liquid, both for 100 epochs; how good that network
becomes was not measured, a trial of it takes minutes here.

Zero-shot did not reproduce: the paper's heads learn eight classes and are asked for two others, its 8 and 9, and are
right in 88 %. A projection that never saw a class has no reason to place it, and the answer depends on the pair and
on the seed: here 60 % for 8 and 9, 56 % over five pairs that cover all ten classes, from the liquid as from raw
counts, where one half is chance. Seen classes are found across modalities in 83 %. Settings are chosen by the classes
alone, without any of the pairs.

When to use it: event streams on hardware whose weights cannot be written well, or a strong random baseline. It costs
one product a step and no gradient. Keep the recurrent weights weak: at the input's scale they cost some points on
development seeds. The liquid fires at 9 % here, above the 2 to 4 % that were expected to be best.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from neuropil import data
from neuropil.bench import figures
from neuropil.bench.claim import at_least, exceeds
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.nn import LIF, CountReadout, Recurrent, Sequential
from neuropil.spiking import (
    ContrastiveProjection,
    PairedContrastiveLoss,
    ResistiveLiquid,
    network_cost,
    zero_shot,
)
from neuropil.studies.spiking._two_modalities import COLUMNS, PIXELS, ROW_STEPS, STEPS, binned, make_scene

SUBSET = 200  # pixels that counts are read from: as many as neurons
EPOCHS = 100  # of training that multiplications are counted for, as published


@dataclass(frozen=True)
class Events(Config):
    """What is read, and by which heads."""

    dataset: str = setting("mnist", "images to move: a name that `neuropil data list` shows")
    train_samples: int = setting(800, "moving digits to learn from", low=100)
    test_samples: int = setting(400, "moving digits that are judged", low=50, high=2000)
    inverse_penalty: float = setting(0.03, "C of the linear readout", low=1e-6)
    space: int = setting(64, "features of the space that modalities share", low=1)
    pairs_seen: int = setting(300, "contrastive steps, one sample a class each", low=1)
    head_lr: float = setting(1e-3, "rate of Adam for the projections", low=0.0)


@dataclass(frozen=True)
class Liquid(Events):
    """A random liquid."""

    units: int = setting(200, "neurons of a liquid", low=2)
    scale: float = setting(0.8, "standard deviation of a vision weight", low=0.0)
    scan_scale: float = setting(4.0, "the same for the scanned digits", low=0.0)
    recurrent_scale: float = setting(0.25, "standard deviation of a recurrent weight", low=0.0)
    decay: float = setting(0.9, "share of a membrane kept per step", low=0.0, high=1.0)
    p_on: float = setting(0.5, "share of devices that were formed", low=0.01, high=1.0)
    spread: float = setting(0.5, "of the devices that were formed", low=0.0)
    adc_bits: int = setting(8, "bits of the converters", low=1, high=32)
    read_noise: float = setting(0.05, "of a device, where noise is tried", low=0.0)


def trial(trial: Trial) -> Outcome:
    """Encode, classify, and where it is judged also ask for classes that heads never saw."""
    config: Any = trial.config
    final = trial.evaluate_on == "test"
    scene = make_scene(config.dataset, config.train_samples, config.test_samples, trial.seed, not final)
    started = time.perf_counter()
    encode = Encoders(trial)
    seen, judged = encode.vision(scene.vision), encode.vision(scene.judged)
    seconds = time.perf_counter() - started
    readout = Linear(seen, scene.labels, config.inverse_penalty)
    metrics: dict[str, float | None] = {"acc": readout.accuracy(judged, scene.judged_labels)}
    cost = {"seconds_of_encoding": seconds}
    scanned, judged_scanned = encode.scanned(scene.scanned), encode.scanned(scene.judged_scanned)
    heard = Linear(scanned, scene.scanned_labels, config.inverse_penalty)
    metrics["scanned_acc"] = heard.accuracy(judged_scanned, scene.judged_scanned_labels)
    if isinstance(config, Liquid):
        metrics |= encode.rates(seen, scanned)
    if not final:
        return Outcome(metrics, cost)
    known = _Both(seen, scene.labels, scanned, scene.scanned_labels)
    metrics |= ask_unseen(
        trial, known, _Both(judged, scene.judged_labels, judged_scanned, scene.judged_scanned_labels)
    )
    arrays: dict[str, Any] = {}
    if isinstance(config, Liquid):
        noisy = encode.vision(scene.judged, config.read_noise)
        metrics["noisy_acc"] = readout.accuracy(noisy, scene.judged_labels)
        metrics |= multiplications(config)
        arrays = {"raster": encode.raster(scene.judged)} if trial.seed == 0 else {}
    return Outcome(metrics, cost, {}, arrays)


class Encoders:
    """What an arm makes of a run of events: numbers per sample."""

    def __init__(self, trial: Trial) -> None:
        self.config, self.arm, self.seed = trial.config, trial.arm, trial.seed
        self.pixels = torch.randperm(PIXELS, generator=torch.Generator().manual_seed(trial.seed))[:SUBSET]

    def liquid(self, inputs: int, scale: float, read_noise: float = 0.0) -> ResistiveLiquid:
        """The liquid of a modality; the same devices with noise and without."""
        config = self.config
        generator = torch.Generator().manual_seed(1000 * self.seed + inputs)
        made = ResistiveLiquid(
            inputs, config.units, scale=scale, decay=config.decay, p_on=config.p_on, spread=config.spread,
            recurrent_scale=0.0 if self.arm == "feedforward" else config.recurrent_scale,
            read_noise=read_noise, adc_bits=None if self.arm == "ideal" else config.adc_bits, generator=generator,
        )  # fmt: skip
        if self.arm == "ideal":  # weights as software would draw them
            for weight, size in ((made.weight, scale), (made.recurrent, config.recurrent_scale)):
                weight.copy_(size * torch.randn(weight.shape, generator=generator))
        return made

    def vision(self, x: Tensor, read_noise: float = 0.0) -> Tensor:
        """Features of the moving digits."""
        if isinstance(self.config, Liquid):
            spikes: Tensor = self.liquid(PIXELS, self.config.scale, read_noise)(x)[0]
            return spikes.sum(0)
        return binned(x, 5) if self.arm == "binned" else x.sum(0)[:, self.pixels]

    def scanned(self, x: Tensor) -> Tensor:
        """Features of the scanned digits."""
        if isinstance(self.config, Liquid):
            spikes: Tensor = self.liquid(COLUMNS, self.config.scan_scale)(x)[0]
            return spikes.sum(0)
        return binned(x, 8) if self.arm == "binned" else x.sum(0)

    def rates(self, seen: Tensor, scanned: Tensor) -> dict[str, float | None]:
        """Spikes per neuron and step."""
        return {
            "firing_rate": float(seen.mean()) / STEPS,
            "scanned_firing_rate": float(scanned.mean()) / (8 * ROW_STEPS),
        }

    def raster(self, x: Tensor) -> dict[str, Any]:
        """Spikes of one digit."""
        spikes = self.liquid(PIXELS, self.config.scale)(x[:, :1])[0][:, 0]
        times, neurons = spikes.nonzero().unbind(1)
        return {
            "layer": "liquid", "times": times.tolist(), "neurons": neurons.tolist(),
            "time_steps": len(spikes), "n_neurons": spikes.shape[1],
        }  # fmt: skip


class Linear:
    """Logistic regression on standardised features."""

    def __init__(self, features: Tensor, labels: Tensor, inverse_penalty: float) -> None:
        self.mean, self.std = features.mean(0), features.std(0) + 1e-3
        self.model = LogisticRegression(C=inverse_penalty, max_iter=200)
        self.model.fit(((features - self.mean) / self.std).numpy(), labels.numpy())

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share named rightly."""
        return float(self.model.score(((features - self.mean) / self.std).numpy(), labels.numpy()))


class _Both(NamedTuple):
    seen: Tensor
    labels: Tensor
    scanned: Tensor
    scanned_labels: Tensor

    def of(self, classes: list[int]) -> _Both:
        """Samples of some classes."""
        here = torch.isin(self.labels, torch.tensor(classes))
        there = torch.isin(self.scanned_labels, torch.tensor(classes))
        return _Both(self.seen[here], self.labels[here], self.scanned[there], self.scanned_labels[there])

    def standardised(self, by: _Both) -> _Both:
        """Features in units of other samples' spread."""

        def scaled(x: Tensor, y: Tensor) -> Tensor:
            return (x - y.mean(0)) / (y.std(0) + 1e-3)

        return self._replace(seen=scaled(self.seen, by.seen), scanned=scaled(self.scanned, by.scanned))


def ask_unseen(trial: Trial, known: _Both, judged: _Both) -> dict[str, float | None]:
    """Accuracy among two classes that projections never saw: the published pair, and five pairs that cover all."""
    rng = np.random.default_rng([trial.seed, 2])
    pairs = [[8, 9], *rng.permutation(10).reshape(5, 2).tolist()]
    unseen: list[float] = []
    seen: list[float] = []
    for pair in pairs:
        others = [label for label in range(10) if label not in pair]
        shown = known.of(others)
        learned, asked = shown.standardised(shown), judged.standardised(shown)
        sights, sounds = contrast(trial, learned, others, rng)
        with torch.no_grad():
            for classes, into in ((pair, unseen), (others, seen)):
                part = asked.of(classes)
                answers = zero_shot(sights(part.seen), sounds(part.scanned), part.scanned_labels)
                into.append(float((answers == part.labels).float().mean()))
    return {
        "published_pair": unseen[0],
        "zero_shot": sum(unseen[1:]) / 5,
        "seen_classes": sum(seen) / len(seen),
    }


def contrast(trial: Trial, learned: _Both, classes: list[int], rng: np.random.Generator) -> list[nn.Module]:
    """Projections of both modalities, trained on one sample of each class at a time."""
    config: Events = trial.config
    torch.manual_seed(trial.seed)
    heads: list[nn.Module] = [
        ContrastiveProjection(x.shape[1], config.space) for x in (learned.seen, learned.scanned)
    ]
    loss = PairedContrastiveLoss()
    optimizer = torch.optim.Adam([p for head in heads for p in head.parameters()], lr=config.head_lr)
    drawn = [
        _of_each(labels, classes, config.pairs_seen, rng)
        for labels in (learned.labels, learned.scanned_labels)
    ]
    for step in range(config.pairs_seen):
        optimizer.zero_grad()
        views = (x[rows[:, step]] for x, rows in zip((learned.seen, learned.scanned), drawn, strict=True))
        first, second = (head(view) for head, view in zip(heads, views, strict=True))
        loss(first, second).backward()
        optimizer.step()
    return heads


def _of_each(labels: Tensor, classes: list[int], count: int, rng: np.random.Generator) -> Tensor:
    """Rows of samples drawn of each class: `[classes, count]`."""
    rows = [rng.choice(np.flatnonzero((labels == label).numpy()), count) for label in classes]
    return torch.from_numpy(np.stack(rows))


def network(units: int) -> Sequential:
    """The liquid's network as it would be trained: what its multiplications are counted on."""
    cell = Recurrent(LIF(decay=0.9, threshold=1.0, reset="zero"), nn.Linear(units, units, bias=False))
    return Sequential(nn.Linear(PIXELS, units, bias=False), cell, CountReadout(), nn.Linear(units, 10))


def _dense(units: int) -> float:
    return network_cost(network(units), torch.zeros(STEPS, 1, PIXELS)).dense_operations


def multiplications(config: Liquid) -> dict[str, float | None]:
    """Multiplications to train a sample: through time, over heads alone with one pass through the liquid.

    A step of training is counted as three passes, for the answer and both gradients.
    """
    whole = _dense(config.units)
    head = float(config.units * 10)
    return {"training_saved": EPOCHS * 3 * whole / (EPOCHS * 3 * head + whole - head)}


def data_checksum(config: Events) -> str:
    """What identifies the images that are moved; scikit-learn's digits come with it."""
    return data.load(config.dataset).checksum


_PENALTIES = (0.003, 0.01, 0.03, 0.1)
_LIQUID = {"scale": (0.5, 0.8, 1.2, 1.8), "inverse_penalty": (0.01, 0.1)}
_COUNTS = {"inverse_penalty": (1e-3, 3e-3, 0.01, 0.03), "head_lr": (1e-3, 3e-3)}

study = Study(
    id="memristive-lsm",
    summary=(
        "Random memristors are the weights of a spiking liquid that never learns. Spike counts of events are read by "
        "small heads, within a modality and across two, at a fraction of the multiplications of training."
    ),
    citation="""@article{lin2025resistive,
  title   = {Resistive memory-based zero-shot liquid state machine for multimodal event data learning},
  author  = {Lin, Ning and Wang, Shaocong and Li, Yi and Wang, Bo and Shi, Shuhui and He, Yangu and Zhang, Woyu and Yu,
             Yifei and Zhang, Yue and Zhang, Xinyuan and others},
  journal = {Nature Computational Science},
  volume  = {5},
  year    = {2025}
}""",
    arms={
        "liquid": Liquid(),
        "ideal": Liquid(),
        "feedforward": Liquid(),
        "counts": Events(),
        "binned": Events(),
    },
    search={
        "liquid": _LIQUID,
        "ideal": _LIQUID,
        "feedforward": _LIQUID,
        "counts": _COUNTS,
        "binned": _COUNTS,
    },
    trial=trial,
    data=data_checksum,
    claims=(
        exceeds(
            "liquid.acc", "counts.acc", by=0.01, primary=True,
            text="200 liquid neurons are read at least 1 point better than 200 pixels of counted events",
        ),
        at_least("liquid.acc", 0.78, text="at least 78 % of moving digits are named by a linear readout"),
        exceeds(
            "liquid.scanned_acc", "counts.scanned_acc", by=0.15,
            text="where the order of events matters the liquid is at least 15 points ahead of counts",
        ),
        exceeds("liquid.acc", "ideal.acc", by=-0.02, text="random devices cost at most 2 points against ideal weights"),
        exceeds("liquid.noisy_acc", "liquid.acc", by=-0.02, text="5 % read noise costs at most 2 points"),
        at_least(
            "liquid.training_saved", 50.0,
            text="training through time takes at least 50 times the multiplications of training heads",
        ),
        exceeds(
            "liquid.acc", "binned.acc", by=0.0, text="it is better than counts in five bins of time"
        ),
        exceeds(
            "liquid.acc", "feedforward.acc", by=0.0, text="recurrent connections help to tell moving digits apart"
        ),
        at_least("liquid.zero_shot", 0.7, text="classes never seen are told apart in at least 70 %, over five pairs"),
        exceeds(
            "liquid.zero_shot", "counts.zero_shot", by=0.1,
            text="and at least 10 points better than from counts of raw events",
        ),
        at_least("liquid.seen_classes", 0.66, text="seen classes are found across modalities in at least 66 %"),
    ),
    seeds=12,
    scales={
        "smoke": {
            "train_samples": 100, "test_samples": 50, "pairs_seen": 20, "units": 60,
        },
        "paper": {"dataset": "mnist-full", "train_samples": 50_000, "test_samples": 2000},
    },
    published={"liquid.acc": 0.8911, "liquid.published_pair": 0.88, "liquid.seen_classes": 0.67},
    figures=(
        figures.MetricStrip("acc", title="Moving digits told apart"),
        figures.MetricStrip("scanned_acc", title="Scanned digits told apart"),
        figures.MetricStrip(
            "zero_shot", title="Two unseen classes told apart across modalities",
            caption="Mean over five pairs that cover the ten classes; one half is chance.",
        ),
        figures.MetricStrip("published_pair", title="The same, eight or nine alone"),
        figures.MetricStrip("seen_classes", title="Eight seen classes told apart across modalities"),
        figures.SpikeRaster(title="Spikes of the liquid"),
    ),
    notes=(__doc__ or "").partition("\n\n")[2],
)  # fmt: skip
