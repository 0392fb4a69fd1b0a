"""A layer of synapses with delays of their own tells where things move from the events that they cause.

Differs from the paper: mosaics of Fashion-MNIST garments stand in for photographs, there are eight directions of one
speed instead of twelve of three, and receptive fields are smaller. Evidence is taken where the centre holds an event,
and polarities are seen from that event, which the text of the paper does not spell out; `unconditioned` is the same
layer without it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from neuropil import data
from neuropil.bench.claim import at_least, exceeds
from neuropil.bench.figures import CostBars, LearningCurves, MetricStrip
from neuropil.bench.figures_maps import Maps
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.spiking import (
    HeterogeneousDelayConv3d,
    event_voxels,
    event_windows,
    keep_shortest_delays,
    moving_events,
    prune_synapses,
    whitened,
)
from neuropil.studies.spiking._rows import data_checksum

DIRECTIONS = 8


@dataclass(frozen=True)
class MotionSetting(Config):
    """Movies of moving images as events, and the layer that tells their direction."""

    dataset: str = setting("fashion-mnist", "images of the mosaics: a name that `neuropil data list` shows")
    movies: int = setting(40, "movies to learn from", low=1)
    judged_movies: int = setting(12, "movies to be judged on", low=1)
    steps: int = setting(60, "steps of a movie", low=10)
    window: int = setting(32, "side of what is seen, in pixels", low=9)
    delays: int = setting(9, "steps that synapses look back", low=1)
    size: int = setting(9, "side of a receptive field, odd", low=1)
    threshold: float = setting(1.2, "change of light that is an event, in standard deviations", low=0.01)
    voxels: int = setting(300, "places of each movie to learn from", low=1)
    epochs: int = setting(6, "passes over them", low=1)
    batch_size: int = setting(256, "places a step", low=1)
    lr: float = setting(1e-3, "learning rate of Adam", low=0.0)
    sparsity: float = setting(2e-4, "weight of the sum of absolute weights", low=0.0)


class Movie(NamedTuple):
    """Events, and the direction of every step."""

    events: Tensor  # [2, time, side, side]
    directions: Tensor  # [time]


def make_movies(images: Tensor, count: int, config: MotionSetting, generator: torch.Generator) -> list[Movie]:
    """Mosaics on a jagged walk: one pixel a step, a new direction every 24 steps on average."""
    made = []
    for _ in range(count):
        chosen = images[torch.randint(len(images), (25,), generator=generator)].float()
        mosaic = chosen.view(5, 5, 28, 28).permute(0, 2, 1, 3).reshape(140, 140)[6:134, 6:134]
        lengths = torch.poisson(torch.full((config.steps,), 24.0), generator=generator).long().clamp_min(1)
        turns = torch.randint(DIRECTIONS, (config.steps,), generator=generator)
        directions = turns.repeat_interleave(lengths)[: config.steps]
        angle = 2 * math.pi * directions / DIRECTIONS
        path = torch.stack([angle.sin(), angle.cos()], dim=1).cumsum(0)
        path = torch.cat([torch.zeros(1, 2), path])
        events = moving_events(whitened(mosaic), path, threshold=config.threshold, window=config.window)
        made.append(Movie(events, directions))
    return made


def places(movie: Movie, arm: str, config: MotionSetting) -> Tensor:
    """Where evidence may be taken: at events, or, unconditioned, anywhere."""
    events = torch.ones_like(movie.events) if arm == "unconditioned" else movie.events
    return event_voxels(events, config.delays, config.size)


def trial(trial: Trial) -> Outcome:
    """One arm on one set of movies."""
    config: Any = trial.config
    generator = torch.Generator().manual_seed(trial.seed)
    images = data.load(config.dataset)
    half = len(images.train) // 2
    unseen = images.test if trial.evaluate_on == "test" else images.train[half:]
    train = make_movies(images.train[:half], config.movies, config, generator)
    judged = make_movies(unseen, config.judged_movies, config, generator)
    layer = HeterogeneousDelayConv3d(DIRECTIONS, delays=config.delays, size=config.size)
    if trial.arm == "instant":
        layer.reach[:-1] = False
    started = time.perf_counter()
    losses = learn(layer, train, trial.arm, config, generator)
    seconds = time.perf_counter() - started
    metrics: dict[str, float | None] = {"acc": judge(layer, judged, trial.arm, config, generator)}
    metrics["event_rate"] = sum(float(m.events.any(0).float().mean()) for m in judged) / len(judged)
    arrays: dict[str, Any] = {}
    if trial.arm == "delays" and trial.evaluate_on == "test":
        for count in (1, 2, 3, 5):
            found = keep_shortest_delays(layer, min(count, config.delays))
            metrics[f"shortest_{count}"] = judge(found, judged, trial.arm, config, generator)
        for share in (0.5, 0.9, 0.97):
            found = prune_synapses(layer, share)
            metrics[f"pruned_{100 * share:g}"] = judge(found, judged, trial.arm, config, generator)
        kernel = layer.weight.detach()[:, 0].sum(2)  # ON synapses, over rows: delay against column
        arrays["kernels"] = {
            f"{360 * d // DIRECTIONS} degrees": kernel[d].flip(0).tolist() for d in range(DIRECTIONS)
        }
    cost = {"seconds": seconds, "milliseconds_per_step": 1000 * seconds / len(losses)}
    return Outcome(metrics, cost, {"loss": _thin(losses)}, arrays)


def learn(
    layer: HeterogeneousDelayConv3d, movies: list[Movie], arm: str, config: Any, generator: torch.Generator
) -> list[float]:
    """Multinomial logistic regression at single places."""
    windows, labels = [], []
    for movie in movies:
        found = places(movie, arm, config)
        found = found[torch.randperm(len(found), generator=generator)[: config.voxels]]
        swap = arm != "unconditioned"
        windows.append(event_windows(movie.events, found, config.delays, config.size, swap=swap))
        labels.append(movie.directions[found[:, 0]])
    x, y = torch.cat(windows), torch.cat(labels)
    optimizer = torch.optim.Adam(layer.parameters(), lr=config.lr)
    losses = []
    for _ in range(config.epochs):
        for batch in torch.randperm(len(y), generator=generator).split(config.batch_size):
            loss = functional.cross_entropy(layer.at(x[batch]), y[batch])
            optimizer.zero_grad()
            (loss + config.sparsity * layer.weight.abs().sum()).backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def judge(
    layer: HeterogeneousDelayConv3d, movies: list[Movie], arm: str, config: Any, generator: torch.Generator
) -> float:
    """Share of steps whose direction has the most evidence, taken over all places of the step."""
    right, steps = 0.0, 0
    for movie in movies:
        found = places(movie, arm, config)
        if arm == "unconditioned":  # as many places as there are events
            many = len(event_voxels(movie.events, config.delays, config.size))
            found = found[torch.randperm(len(found), generator=generator)[:many]]
        if not len(found):
            continue
        windows = event_windows(movie.events, found, config.delays, config.size, swap=arm != "unconditioned")
        evidence = layer.at(windows).log_softmax(-1)
        summed = torch.zeros(len(movie.directions), DIRECTIONS).index_add_(0, found[:, 0], evidence)
        seen = found[:, 0].unique()
        right += float((summed[seen].argmax(-1) == movie.directions[seen]).sum())
        steps += len(seen)
    return right / max(1, steps)


def _thin(values: list[float], points: int = 100) -> list[float]:
    size = max(1, -(-len(values) // points))
    return [sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)]


_SEARCH = {"lr": (1e-3, 2e-3, 4e-3), "sparsity": (0.0, 2e-4, 1e-3)}

study = Study(
    id="motion-delays",
    summary=(
        "Images move and cause events; a layer whose synapses each have a place and a delay tells the direction. "
        "Without delays it cannot, and nor can it where it does not look from event to event."
    ),
    citation="""@article{grimaldi2023learning,
  title   = {Learning heterogeneous delays in a layer of spiking neurons for fast motion detection},
  author  = {Grimaldi, Antoine and Perrinet, Laurent U},
  journal = {Biological Cybernetics},
  year    = {2023}
}""",
    arms={"delays": MotionSetting(), "instant": MotionSetting(), "unconditioned": MotionSetting()},
    search={"delays": _SEARCH, "instant": _SEARCH, "unconditioned": _SEARCH},
    trial=trial,
    data=lambda config: data_checksum(config.dataset),
    claims=(
        exceeds(
            "delays.acc", "instant.acc", by=0.4, primary=True,
            text="delays are worth at least 40 points of a step's direction",
        ),
        exceeds(
            "delays.acc", "unconditioned.acc", by=0.4,
            text="so is to look from event to event, polarities as seen from the event",
        ),
        at_least("delays.acc", 0.7, text="at least 70 % of the steps' directions are right"),
        exceeds("delays.pruned_90", "delays.acc", by=-0.05, text="90 % of the synapses cost less than 5 points"),
        exceeds("delays.acc", "delays.shortest_2", by=0.15, text="two of nine delays are not enough, by 15 points"),
    ),
    scales={
        "smoke": {"movies": 3, "judged_movies": 2, "voxels": 50, "epochs": 1, "steps": 30},
        "paper": {"movies": 800, "judged_movies": 200, "steps": 200, "window": 96, "delays": 21, "size": 17},
    },
    figures=(
        MetricStrip("acc", title="Steps whose direction is right"),
        Maps(
            "kernels", title="What neurons listen to", x="column", y="delay + 1, steps",
            caption="ON synapses of each direction's neuron, summed over rows: a slope is a motion.",
        ),
        LearningCurves("loss", title="Training loss", x_title="share of training, %"),
        CostBars(("milliseconds_per_step",)),
    ),
)  # fmt: skip
