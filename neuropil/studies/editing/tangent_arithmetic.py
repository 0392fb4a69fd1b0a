"""Task arithmetic: tasks learned apart are added, or taken away, in weight space and in its tangent space.

Here a small network that knows digits and clothes upright learns four turned versions of them, each apart, and the
four changes are added: in the published work a CLIP vision transformer learns eight data sets. Its head is frozen in
both. Absolute numbers are therefore far from the published ones, which are quoted from memory of the paper's tables.

What to expect: changes learned in the tangent space add up better, by about six points of accuracy for the sum, while
each task alone is learned as well; every arm chose its rate for the sum's accuracy. They disturb each other less. Using
ordinary changes in the tangent space afterwards (post hoc) disturbs as little but knows each task less. All of it is
far from one network that learns all tasks together.

What did not reproduce: subtraction. Both models lose half of a group's accuracy at two points of cost for the other
classes, the ordinary one even three points more; the published advantage of the linear model is not there. Nor is the
published explanation: eigenfunctions of the tangent kernel of turned digits have no more energy on digits than on
clothes here (ratio 0.91 over both directions).

When to use it: when changes shall be combined later, shared, or taken out again, and a linear model is good enough for
each task alone. It costs a forward-mode derivative in every pass, training and answering: a training step takes three
to four times as long.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from neuropil import data
from neuropil.bench.claim import at_least, exceeds
from neuropil.bench.figures import CostBars, LearningCurves, MetricStrip
from neuropil.bench.figures_trade import Matrices
from neuropil.bench.overhead import overhead
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.data.transforms import Rotate
from neuropil.editing import (
    TaskVector,
    linearize,
    ntk_localization,
    ties_merge,
    weight_disentanglement_error,
)

SCALES = tuple(step / 20 for step in range(21))
DATA = ("mnist", "fashion-mnist")
GROUPS = tuple(range(first, first + 5) for first in (0, 5, 10, 15))


@dataclass(frozen=True)
class TangentSetting(Config):
    """A network that knows images upright, and how it learns each task apart."""

    pretrain_steps: int = setting(200, "steps of 64 images on upright ones", low=1, high=100_000)
    train_samples: int = setting(4000, "images of each task, upright and turned", low=100, high=9000)
    test_samples: int = setting(2000, "images that a task is judged by", low=50, high=2000)
    hidden: int = setting(128, "width of both hidden layers", low=1, high=10_000)
    steps: int = setting(250, "steps of 64 images on each task", low=1, high=100_000)
    lr: float = setting(1e-3, "learning rate of Adam on each task", low=0.0, high=1.0)


@dataclass(frozen=True)
class TiesSetting(TangentSetting):
    """Settings of merging by trimming and signs."""

    density: float = setting(0.2, "share of each vector's values that counts", low=0.01, high=1.0)


class Samples(NamedTuple):
    """Images `[n, 196]` with labels in 0 to 19."""

    x: Tensor
    y: Tensor

    def of(self, classes: range, inside: bool = True) -> Samples:
        """Those of some classes, or of all others."""
        chosen = ((self.y >= classes.start) & (self.y < classes.stop)) == inside
        return Samples(self.x[chosen], self.y[chosen])


class Parts(NamedTuple):
    """A task's samples."""

    train: Samples
    validation: Samples
    test: Samples


class World(NamedTuple):
    """What all arms start from."""

    net: nn.Sequential
    upright: Parts  # digits and clothes together
    turned: list[Parts]


def trial(trial: Trial) -> Outcome:
    """Learn every task apart, combine the changes, and judge the combinations."""
    config: Any = trial.config
    world = make_world(config, trial.seed)
    started = time.perf_counter()
    if trial.arm == "joint":
        return _jointly(trial, world)
    tangent = trial.arm == "tangent"
    vectors = [
        learn(world.net, task.train, config, trial.seed + 100 * number, tangent)
        for number, task in enumerate(world.turned)
    ]
    seconds = time.perf_counter() - started
    base = linearize(world.net) if trial.arm in ("tangent", "post_hoc") else world.net
    merged = sum(vectors, TaskVector({}))
    if trial.arm == "ties":
        merged = len(vectors) * ties_merge(vectors, config.density)
    by_scale = [_mean(accuracies(merged.apply_to(base, s), world.turned, "validation")) for s in SCALES]
    scale = SCALES[max(range(len(SCALES)), key=by_scale.__getitem__)]
    models = [*(vector.apply_to(base) for vector in vectors), merged.apply_to(base, scale)]
    table = [accuracies(model, world.turned, trial.evaluate_on) for model in models]
    single = [table[number][number] for number in range(len(vectors))]
    metrics: dict[str, float | None] = {
        "addition": _mean(table[-1]),
        "single": _mean(single),
        "normalised": _mean([added / one for added, one in zip(table[-1], single, strict=True)]),
        "scale": scale,
        "length": _mean([vector.norm for vector in vectors]),
        "cosine": _mean([a.cosine(b) for a, b in combinations(vectors, 2)]),
    }
    arrays: dict[str, Any] = {"tasks": table}
    cost = {"seconds": seconds}
    if trial.evaluate_on == "test" and trial.arm != "ties":
        error = _disentanglement(base, vectors, world.turned)
        metrics |= {"disentanglement_error": float(error.mean()), **_negation(trial, world, base)}
        arrays["disentanglement"] = (error / 2).tolist()
    if trial.evaluate_on == "test" and tangent:
        metrics["localisation"] = _localisation(world)
        cost["overhead"] = _overhead(world)
    return Outcome(metrics, cost, {"by_scale": by_scale}, arrays)


def make_world(config: TangentSetting, seed: int) -> World:
    """The pretrained network with a frozen head, and the tasks."""
    generator = torch.Generator().manual_seed(seed)
    digits, clothes = (_shuffled(name, 10 * number, generator) for number, name in enumerate(DATA))
    upright = [_parts(images, 0.0, config) for images in (digits, clothes)]
    together = Parts(
        *(Samples(torch.cat((a.x, b.x)), torch.cat((a.y, b.y))) for a, b in zip(*upright, strict=True))
    )
    turned = [_parts(digits, angle, config) for angle in (30.0, 45.0)]
    turned += [_parts(clothes, angle, config) for angle in (60.0, -45.0)]
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(196, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.hidden), nn.ReLU(),
        nn.Linear(config.hidden, 20),
    )  # fmt: skip
    descend(net, together.train, config.pretrain_steps, 1e-3, seed)
    net[-1].requires_grad_(False)
    return World(net, together, turned)


def _shuffled(name: str, first: int, generator: torch.Generator) -> tuple[Samples, Samples]:
    """Training and test images `[n, 28, 28]` of a data set, labels from `first` on."""
    found = data.load(name)
    order = torch.randperm(len(found.train), generator=generator)
    train = Samples(found.train[order].float() / 255, found.train_labels[order] + first)
    return train, Samples(found.test.float() / 255, found.test_labels + first)


def _parts(images: tuple[Samples, Samples], angle: float, config: TangentSetting) -> Parts:
    train, test = images
    cuts = (
        Samples(train.x[: config.train_samples], train.y[: config.train_samples]),
        Samples(train.x[9000:], train.y[9000:]),
        Samples(test.x[: config.test_samples], test.y[: config.test_samples]),
    )
    return Parts(*(Samples(_small(Rotate(angle)(part.x) if angle else part.x), part.y) for part in cuts))


def _small(x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels, `[n, 196]`, about centred."""
    return nn.functional.avg_pool2d(x[:, None], 2).flatten(1) - 0.2


def descend(model: nn.Module, samples: Samples, steps: int, lr: float, seed: int) -> None:
    """Adam on batches of 64 drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for _ in range(steps):
        rows = torch.randint(len(samples.x), (64,), generator=generator)
        loss = nn.functional.cross_entropy(model(samples.x[rows]), samples.y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def learn(net: nn.Module, samples: Samples, config: TangentSetting, seed: int, tangent: bool) -> TaskVector:
    """What a task adds to the weights, learned in the tangent space or not."""
    model = linearize(net) if tangent else copy.deepcopy(net)
    descend(model, samples, config.steps, config.lr, seed)
    return TaskVector.between(net, model)


@torch.no_grad()
def accuracy(model: nn.Module, samples: Samples) -> float:
    """Share of images answered rightly among all twenty classes."""
    return float((model(samples.x).argmax(-1) == samples.y).float().mean())


def accuracies(model: nn.Module, tasks: list[Parts], split: str) -> list[float]:
    """Accuracy on each task."""
    return [accuracy(model, getattr(task, split)) for task in tasks]


def _jointly(trial: Trial, world: World) -> Outcome:
    """One network that learns all tasks together, with the steps of all: what is possible without adding."""
    config: TangentSetting = trial.config
    together = Samples(
        *(torch.cat(parts) for parts in zip(*(task.train for task in world.turned), strict=True))
    )
    started = time.perf_counter()
    model = copy.deepcopy(world.net)
    descend(model, together, len(world.turned) * config.steps, config.lr, trial.seed)
    seconds = time.perf_counter() - started
    table = [accuracies(model, world.turned, trial.evaluate_on)]
    return Outcome({"addition": _mean(table[0])}, {"seconds": seconds}, {}, {"tasks": table})


def _disentanglement(base: nn.Module, vectors: list[TaskVector], tasks: list[Parts]) -> Tensor:
    """Mean over pairs of tasks, 200 images each."""
    errors = [
        weight_disentanglement_error(
            base, [vectors[i], vectors[j]], [tasks[i].test.x[:200], tasks[j].test.x[:200]]
        )
        for i, j in combinations(range(len(tasks)), 2)
    ]
    return torch.stack([found.error for found in errors]).mean(0)


def _negation(trial: Trial, world: World, base: nn.Module) -> dict[str, float | None]:
    """Take groups of classes away, as far as the other classes lose at most 3 points on validation images."""
    config: TangentSetting = trial.config
    target, control = [], []
    for group in GROUPS:
        inside, outside = ([part.of(group, side) for part in world.upright] for side in (True, False))
        vector = learn(world.net, inside[0], config, trial.seed + group.start, trial.arm == "tangent")
        before = accuracy(base, outside[1])
        allowed = [
            (accuracy(edited, inside[1]), scale)
            for scale in SCALES
            if accuracy(edited := vector.apply_to(base, -scale), outside[1]) >= before - 0.03
        ]
        edited = vector.apply_to(base, -min(allowed)[1])
        target.append(accuracy(base, inside[2]) - accuracy(edited, inside[2]))
        control.append(accuracy(base, outside[2]) - accuracy(edited, outside[2]))
    return {"negation_target_drop": _mean(target), "negation_control_drop": _mean(control)}


def _localisation(world: World) -> float:
    """Kernel eigenfunctions' energy on their own task over that on another, for digits at 30 and clothes at 60 degrees.

    The geometric mean of both directions: clothes are brighter, and have more energy in any case.
    """
    digits, clothes = world.turned[0].test.x, world.turned[2].test.x
    ratios = [
        ntk_localization(world.net, own[:40], own[40:80], other[:40], share=0.9).ratio
        for own, other in ((digits, clothes), (clothes, digits))
    ]
    return float((ratios[0] * ratios[1]) ** 0.5)


def _overhead(world: World) -> float:
    """Time of a training step in the tangent space over that of a plain one."""
    tangent, plain = linearize(world.net), copy.deepcopy(world.net)
    x, y = (part[:64] for part in world.turned[0].train)

    def step(model: nn.Module) -> None:
        model.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()

    return overhead(lambda: step(plain), lambda: step(tangent))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _checksum(config: Any) -> str:
    return "+".join(data.load(name).checksum for name in DATA)


_RATES = (3e-4, 1e-3, 3e-3, 1e-2)

study = Study(
    id="tangent-arithmetic",
    summary=(
        "A network learns four tasks, each apart, and the changes of its weights are added up. Learned in the tangent "
        "space, as a linear model around the pretrained weights, they disturb each other less and the sum knows more."
    ),
    citation="""@inproceedings{ortizjimenez2023tangent,
  title     = {Task Arithmetic in the Tangent Space: Improved Editing of Pre-Trained Models},
  author    = {Ortiz-Jimenez, Guillermo and Favero, Alessandro and Frossard, Pascal},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2023}
}""",
    arms={
        "tangent": TangentSetting(),
        "nonlinear": TangentSetting(),
        "post_hoc": TangentSetting(),
        "ties": TiesSetting(),
        "joint": TangentSetting(),
    },
    search={
        "tangent": {"lr": _RATES},
        "nonlinear": {"lr": (1e-4, *_RATES[:3])},
        "post_hoc": {"lr": (1e-4, *_RATES[:3])},
        "ties": {"lr": (3e-4, 1e-3), "density": (0.2, 0.5)},
        "joint": {"lr": _RATES},
    },
    seeds=10,
    objective="addition",
    tune_trials=4,
    trial=trial,
    data=_checksum,
    claims=(
        exceeds(
            "tangent.addition", "nonlinear.addition", by=0.03, primary=True,
            text="tasks added in the tangent space are at least 3 points more accurate than added as they are",
        ),
        exceeds(
            "tangent.addition", "ties.addition", by=0.02,
            text="and at least 2 points more than merged by trimming and signs",
        ),
        exceeds(
            "tangent.normalised", "nonlinear.normalised", by=0.03,
            text="of what each task reaches alone, at least 3 points more are kept",
        ),
        exceeds(
            "nonlinear.disentanglement_error", "tangent.disentanglement_error", by=0.03,
            text="two vectors change each other's answers less often in the tangent space, by 3 points over the grid",
        ),
        exceeds(
            "tangent.single", "nonlinear.single", by=-0.02,
            text="each task alone is learned as well, within 2 points",
        ),
        at_least(
            "tangent.negation_target_drop", 0.25,
            text="subtracting a group of classes takes at least 25 points of its accuracy away",
        ),
        exceeds(
            "tangent.negation_target_drop", "nonlinear.negation_target_drop", by=0.0,
            text="subtraction takes more away in the tangent space",
        ),
    ),
    scales={"smoke": {"pretrain_steps": 30, "train_samples": 300, "test_samples": 100, "hidden": 16, "steps": 10}},
    published={
        "tangent.addition": 0.765, "nonlinear.addition": 0.71, "post_hoc.addition": 0.57,
        "tangent.normalised": 0.85, "nonlinear.normalised": 0.77, "post_hoc.normalised": 0.82,
    },
    figures=(
        Matrices(
            "tasks", "What each change of the weights knows",
            "Rows: the change learned on each task, and last their sum (joint: one network taught all). Columns: "
            "accuracy on digits turned by 30 and 45 degrees, and clothes turned by 60 and -45.",
            x="task", y="vector",
        ),
        Matrices(
            "disentanglement", "Where two vectors disturb each other",
            "Share of answers that the other task's vector changes, for scales of both vectors from -1.5 to 1.5, mean "
            "over pairs of tasks. Dark is disturbed; the cross in the middle is zero by definition.",
            x="scale of one vector, steps of 0.5", y="scale of the other",
        ),
        LearningCurves("by_scale", title="How far to go along the sum", x_title="scale, steps of 0.05"),
        MetricStrip("normalised", title="Share of each task's accuracy that the sum keeps"),
        MetricStrip("disentanglement_error", title="Disentanglement error"),
        MetricStrip("negation_target_drop", title="What subtracting a group of classes takes away"),
        CostBars(),
    ),
    notes=(__doc__ or "").partition("\n\n")[2],  # above, where words do not make the evidence stale
)  # fmt: skip
