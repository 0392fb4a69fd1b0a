"""Fast and slow weights: a few examples of new classes at a time, without losing the base or the gift for more.

A reconstruction on other images: the paper's are miniature and tiered ImageNet and birds, its equations were not at
hand. Ten digits and ten articles of clothing stand in, in an order drawn anew for each seed: eight base classes, four
tasks of two classes with twenty images each, four classes never trained on. The task is known when answering.

The claim has been changed, and why is part of the result. The first run (seeds 0 to 7) asked for a point over elastic
consolidation of one set of weights, on classes learned and classes to come together, and was undecided: 0.7 points
(-0.7 to 2.0). On development seeds, with consolidation searched up to strengths of a million, what slow weights add to
it is a few tenths of a point: no number of seeds would decide a point. Now every arm is searched wider with one budget,
and the primary claim is of the classes learned, beside fine-tuning: 2 points, of the 3.6 seen on development seeds;
both claims about consolidation stand beside it. A run on seeds 8 to 27, made by mistake with the first run's settings
and a margin of 3, found 4.2 points beside fine-tuning (2.9 to 5.6: undecided), 1.1 beside consolidation (0.2 to 2.0),
3.4 on classes to come beside fine-tuning (1.4 to 5.3). The margin had been lowered to 2 before that run was seen, as 3
points would have taken two hundred seeds, and one more run was stopped unread. This study begins at seed 40.
Consolidation alone keeps the base as well.

Slow weights that move only when a task ends, as the abstract suggests, put the body out of step with the heads of
tasks it met halfway: on development seeds classes learned were answered worse than after fine-tuning. Moving them
every ten steps, with fast weights starting again from them, mends that, and is what tuning chose; fast and slow
weights are then the same when a task ends. The penalty is worth less than two points on top, most of it on the base.
A body that stops learning after the base classes is within two points. Use it where tasks bring few examples and the
base must be kept; where base classes span what will come, freezing the body is simpler.

It keeps one copy of the weights and one importance for each; a step costs 1.4 times a plain one on this small network,
the end of a task one gradient a sample.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil import data
from neuropil.bench.claim import equivalent, exceeds
from neuropil.bench.figures import AccuracyMatrix, LearningCurves, MetricStrip, TaskCurves
from neuropil.bench.figures_features import FeatureMap
from neuropil.bench.overhead import overhead
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.continual import EWC, FastSlow
from neuropil.data.arrays import Arrays
from neuropil.data.task import Batch, Stream, Task
from neuropil.data.transforms import Compose, Normalize, Reshape
from neuropil.nn import NearestPrototype
from neuropil.studies.continual._setting import thin
from neuropil.training import Backprop, Plugin, Trainer


@dataclass(frozen=True)
class FewShotSetting(Config):
    """Twenty classes, digits and clothing: eight at first, then two at a time from few examples, four never."""

    base_samples: int = setting(400, "training images of each of the eight base classes", low=10)
    shots: int = setting(20, "training images of each later class", low=1)
    tasks: int = setting(4, "later tasks of two classes each", low=1, high=4)
    novel_shots: int = setting(5, "images that a class never trained on is known by", low=1)
    hidden: tuple[int, ...] = setting(
        (200, 64), "widths of the hidden layers; the last is the features", low=1
    )
    base_steps: int = setting(300, "steps on the base classes", low=1)
    steps: int = setting(150, "steps on each later task", low=1)
    batch_size: int = setting(64, "images per step", low=1)
    lr: float = setting(1e-3, "learning rate of Adam", low=0.0)


@dataclass(frozen=True)
class EWCFewShotSetting(FewShotSetting):
    """Settings of elastic weight consolidation."""

    strength: float = setting(1000.0, "weight of the penalty", low=0.0)


@dataclass(frozen=True)
class FastSlowSetting(EWCFewShotSetting):
    """Settings of fast and slow weights."""

    step: float = setting(0.2, "share of the way that slow weights move to fast ones", low=0.01, high=1.0)
    every: int | None = setting(10, "steps within a task after which slow weights move as well", low=1)


class Life(NamedTuple):
    """What is learned in turn, and the classes that never are."""

    stream: Stream
    novel: Arrays  # labelled 0 to 3; supports and queries are drawn from it
    novel_supports: Arrays


def make_life(config: FewShotSetting, seed: int, evaluate_on: str) -> Life:
    """Classes in an order drawn from the seed; validation images come from the training part."""
    order = np.random.default_rng([seed, 20]).permutation(20)
    parts = [order[:8], *(order[8 + 2 * i : 10 + 2 * i] for i in range(config.tasks))]
    inputs, labels, test, test_labels = _both()
    place = {int(kind): at for at, kind in enumerate(np.concatenate(parts))}
    tasks = []
    for index, kinds in enumerate(parts):
        count = config.base_samples if index == 0 else config.shots
        rows = [_rows(labels, int(kind), seed) for kind in kinds]
        train, validation = (torch.cat([r[cut] for r in rows]) for cut in (slice(count), slice(-100, None)))
        judged = torch.cat([(test_labels == int(kind)).nonzero()[:, 0] for kind in kinds])
        tasks.append(
            Task(
                "base" if index == 0 else f"classes {index}",
                _arrays(inputs, labels, train, place), _arrays(inputs, labels, validation, place),
                _arrays(test, test_labels, judged, place), tuple(place[int(kind)] for kind in kinds), index,
            )
        )  # fmt: skip
    never = {int(kind): at for at, kind in enumerate(order[16:])}
    rows = [_rows(labels, kind, seed) for kind in never]
    supports = _arrays(inputs, labels, torch.cat([r[:200] for r in rows]), never)
    queries = _arrays(inputs, labels, torch.cat([r[-100:] for r in rows]), never)
    if evaluate_on == "test":
        at = torch.cat([(test_labels == kind).nonzero()[:, 0] for kind in never])
        queries = _arrays(test, test_labels, at, never)
    return Life(Stream(tuple(tasks), "digits and clothing", len(place)), queries, supports)


def _both() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Digits, labelled 0 to 9, and clothing, 10 to 19: training and test part."""
    digits, clothing = data.load("mnist"), data.load("fashion-mnist")
    return (
        torch.cat([digits.train, clothing.train]), torch.cat([digits.train_labels, clothing.train_labels + 10]),
        torch.cat([digits.test, clothing.test]), torch.cat([digits.test_labels, clothing.test_labels + 10]),
    )  # fmt: skip


def _rows(labels: Tensor, kind: int, seed: int) -> Tensor:
    rows = (labels == kind).nonzero()[:, 0]
    return rows[torch.from_numpy(np.random.default_rng([seed, kind]).permutation(len(rows)))]


def _arrays(inputs: Tensor, labels: Tensor, rows: Tensor, place: dict[int, int]) -> Arrays:
    targets = torch.tensor([place.get(kind, 0) for kind in range(20)])[labels]
    return Arrays(inputs, targets, Compose((Normalize(0.2, 0.33), Reshape((784,)))), rows)


class Net(nn.Module):
    """A body that makes features, and one linear head whose rows are the classes."""

    def __init__(self, hidden: Sequence[int], classes: int) -> None:
        super().__init__()
        widths = (784, *hidden)
        layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
        self.body = nn.Sequential(*[part for pair in layers for part in pair])
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of all classes."""
        logits: Tensor = self.head(self.body(x))
        return logits


def make_plugins(arm: str, config: Any, model: Net, generator: torch.Generator) -> list[Plugin]:
    """What acts on training."""
    if arm == "ewc":
        return [EWC(model, strength=config.strength, samples=128, generator=generator)]
    if arm in ("fast_slow", "unconsolidated"):
        strength = config.strength if arm == "fast_slow" else 0.0
        return [
            FastSlow(
                model,
                step=config.step,
                strength=strength,
                every=config.every,
                samples=128,
                exclude=["head"],
                generator=generator,
            )
        ]
    return []


def learn(learner: Backprop, task: Task, steps: int, config: FewShotSetting, seed: int) -> list[float]:
    """So many steps on one task, in a loop of our own."""
    for plugin in learner.plugins:
        plugin.before_task(task)
    learner.start_task()
    learner.model.train()
    losses: list[float] = []
    epoch = 0
    while len(losses) < steps:
        for batch in data.batches(
            task.train, config.batch_size, seed=seed, epoch=epoch, classes=task.classes
        ):
            losses.append(learner.update(batch)["loss"])
            if len(losses) == steps:
                break
        epoch += 1
    for plugin in learner.plugins:
        plugin.after_task(task)
    return losses


@torch.no_grad()
def novel_accuracy(model: Net, life: Life, shots: int, seed: int, episodes: int = 40) -> float:
    """Mean accuracy of nearest prototypes on the classes never trained on, over episodes of fresh examples."""
    model.eval()
    inputs, labels = life.novel_supports.gather(torch.arange(len(life.novel_supports)))
    queries, truth = life.novel.gather(torch.arange(len(life.novel)))
    features, known = model.body(queries), model.body(inputs)
    generator = torch.Generator().manual_seed(seed)
    few, right = NearestPrototype(nn.Identity()), 0.0
    for _ in range(episodes):
        order = torch.randperm(len(labels), generator=generator)
        chosen = torch.cat([order[labels[order] == kind][:shots] for kind in range(4)])
        right += float((few.fit(known[chosen], labels[chosen])(features).argmax(1) == truth).float().mean())
    return right / episodes


def trial(trial: Trial) -> Outcome:
    """One arm through one life."""
    config: Any = trial.config
    life = make_life(config, trial.seed, trial.evaluate_on)
    torch.manual_seed(trial.seed)
    model = Net(config.hidden, life.stream.n_classes)
    plugins = make_plugins(trial.arm, config, model, torch.Generator().manual_seed(trial.seed))
    learner = Backprop(model, torch.optim.Adam(model.parameters(), lr=config.lr), plugins=plugins)
    judge = Trainer(learner=learner, progress=False)
    matrix: list[list[float | None]] = []
    losses: list[float] = []
    started = time.perf_counter()
    tasks = list(life.stream)
    if trial.arm == "joint":
        together = Task("all", life.stream.train, tasks[0].validation, tasks[0].test)
        losses = learn(learner, together, config.base_steps + config.tasks * config.steps, config, trial.seed)
    for index, task in enumerate(tasks):
        if trial.arm != "joint":
            if trial.arm == "frozen" and index == 1:
                model.body.requires_grad_(False)
            losses += learn(learner, task, config.steps if index else config.base_steps, config, trial.seed)
        matrix.append(
            [judge.evaluate(each, trial.evaluate_on) if each.index <= index else None for each in tasks]
        )
    seconds = time.perf_counter() - started
    last = [value for value in matrix[-1] if value is not None]
    fast = novel_accuracy(model, life, config.novel_shots, trial.seed)
    metrics: dict[str, float | None] = {"seen_acc": sum(last) / len(last), "base_acc": last[0]}
    metrics |= {"novel_acc": fast, "novel_fast_acc": fast, "seen_slow_acc": None}
    arrays: dict[str, Any] = {}
    if plugins and isinstance(plugins[0], FastSlow):
        with plugins[0].slow_weights():
            metrics["novel_acc"] = novel_accuracy(model, life, config.novel_shots, trial.seed)
            slow = [judge.evaluate(task, trial.evaluate_on) for task in tasks]
            metrics["seen_slow_acc"] = sum(slow) / len(slow)
            arrays["features"] = _features(model, life) if trial.seed == 0 else None
    elif trial.seed == 0:
        arrays["features"] = _features(model, life)
    arrays["accuracy_matrix"] = matrix
    metrics["acc"] = 0.5 * (metrics["seen_acc"] + metrics["novel_acc"])  # type: ignore[operator]
    cost = {"seconds": seconds, "milliseconds_per_step": 1000 * seconds / len(losses)}
    if trial.evaluate_on == "test" and trial.arm == "fast_slow":
        cost["overhead"] = _overhead(config, learner, tasks[-1])
    return Outcome(metrics, cost, {"loss": thin(losses)}, arrays)


def _overhead(config: FewShotSetting, learner: Backprop, task: Task) -> float:
    """Time of a step under the penalty over that of a plain step."""
    plain_model = Net(config.hidden, learner.model.head.out_features)  # type: ignore[union-attr, arg-type]
    plain = Backprop(plain_model, torch.optim.Adam(plain_model.parameters(), lr=config.lr))
    batch: Batch = next(iter(data.batches(task.train, config.batch_size, seed=0, classes=task.classes)))
    return overhead(lambda: plain.update(batch), lambda: learner.update(batch))


@torch.no_grad()
def _features(model: Net, life: Life) -> dict[str, Any]:
    """Images of the classes never trained on, on the two directions along which their features vary most."""
    inputs, labels = life.novel.gather(torch.arange(0, len(life.novel), 2))
    features = functional.normalize(model.body(inputs), dim=1)
    centred = features - features.mean(0)
    plane = centred @ torch.linalg.svd(centred, full_matrices=False)[2][:2].mT
    means = [[round(v, 3) for v in plane[labels == kind].mean(0).tolist()] for kind in range(4)]
    x, y = ([round(v, 3) for v in plane[:, i].tolist()] for i in range(2))
    return {"x": x, "y": y, "label": labels.tolist(), "prototypes": means}


def data_checksum(config: Any) -> str:
    """What identifies the images."""
    return hashlib.sha256(
        "".join(data.load(name).checksum for name in ("mnist", "fashion-mnist")).encode()
    ).hexdigest()


_SEEDS = 32  # what 2 points take, by the spread on development seeds
_PLAIN = {"lr": (1e-4, 3e-4, 1e-3, 3e-3), "steps": (50, 150)}

study = Study(
    id="fast-slow-fscl",
    summary=(
        "A network learns eight classes, then eight more two by two from twenty images each. Fast weights learn each "
        "task and hold what earlier ones need; slow weights follow and know classes to come from five images better."
    ),
    citation="""@article{wang2021fewshot,
  title   = {Few-shot Continual Learning: a Brain-inspired Approach},
  author  = {Wang, Liyuan and Li, Qian and Zhong, Yi and Zhu, Jun},
  journal = {arXiv preprint arXiv:2104.09034},
  year    = {2021}
}""",
    arms={
        "fast_slow": FastSlowSetting(),
        "ewc": EWCFewShotSetting(),
        "unconsolidated": FastSlowSetting(),
        "finetune": FewShotSetting(),
        "frozen": FewShotSetting(),
        "joint": FewShotSetting(),
    },
    search={
        "fast_slow": {"lr": (3e-4, 1e-3), "strength": (1e4, 1e5), "step": (0.1, 0.2)},
        "ewc": {"lr": (3e-4, 1e-3), "strength": (1e3, 1e4, 1e5, 1e6)},
        "unconsolidated": {"lr": (3e-4, 1e-3), "step": (0.05, 0.1, 0.2, 0.5)},
        "finetune": _PLAIN,
        "frozen": _PLAIN,
        "joint": _PLAIN,
    },
    trial=trial,
    data=data_checksum,
    seeds=_SEEDS,
    first_seed=40,
    claims=(
        exceeds(
            "fast_slow.seen_acc", "finetune.seen_acc", by=0.02, primary=True,
            text="classes learned are known at least 2 points better than after fine-tuning",
        ),
        exceeds(
            "fast_slow.acc", "ewc.acc", by=0.01,
            text="slow weights are worth at least 1 point, on classes learned and classes to come, over consolidation",
        ),
        equivalent(
            "fast_slow.acc", "ewc.acc", within=0.01,
            text="with both tuned, slow weights and consolidation of one set of weights are within 1 point",
        ),
        exceeds(
            "fast_slow.base_acc", "finetune.base_acc", by=0.02,
            text="the base classes lose at least 2 points less than in fine-tuning",
        ),
        exceeds(
            "fast_slow.novel_acc", "finetune.novel_acc", by=0.01,
            text="classes to come are known at least 1 point better than after fine-tuning",
        ),
        exceeds(
            "fast_slow.novel_acc", "ewc.novel_acc", by=0.0,
            text="classes to come are known better than under consolidation of one set of weights",
        ),
        exceeds(
            "fast_slow.acc", "frozen.acc", by=-0.02,
            text="it is within 2 points of a network whose body stops learning after the base classes",
        ),
        equivalent(
            "fast_slow.acc", "unconsolidated.acc", within=0.02,
            text="where slow weights move often, the penalty makes less than 2 points",
        ),
    ),
    scales={
        "smoke": {"base_samples": 40, "base_steps": 20, "steps": 5, "tasks": 2, "every": 2, "hidden": (32, 16)},
    },
    figures=(
        MetricStrip("novel_acc", title="Classes never trained on, from five images"),
        MetricStrip("seen_acc", title="Classes learned, at the end"),
        FeatureMap(
            title="Classes never trained on, seen from inside",
            caption="A dot is a test image of one of the four, its colour its class; a cross is the class's mean.",
        ),
        AccuracyMatrix(),
        TaskCurves(),
        LearningCurves("loss", title="Training loss", x_title="share of training, %"),
    ),
    notes=(__doc__ or "").partition("\n\n")[2],  # above, where words do not make the evidence stale
)  # fmt: skip
