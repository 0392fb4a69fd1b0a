"""Binary weights learned through their means: permuted digits in turn, and a perceptron held against its theory.

The primary claim fails. In the first run, on seeds 0 to 7, it was undecided (1.4 points, 0.5 to 2.4, 1 asked for); this
one, on fresh seeds and with the same margin, finds 0.7 points (0.4 to 1.0). With normalised inputs and as many settings
tried, metaplastic weights are a strong baseline; what holds is the gain over having no prior, and the theory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuropil import data
from neuropil.bench import figures
from neuropil.bench.claim import at_least, exceeds
from neuropil.bench.overhead import overhead
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.continual import (
    EWC,
    BinaryVariationalLinear,
    MeanFieldPrior,
    perceptron_amp,
    two_task_perceptron_state_evolution,
)
from neuropil.data.task import Task
from neuropil.training import Plugin, Trainer

# Samples per weight of both tasks, correlation of their teachers
PERCEPTRONS = ((0.8, 0.8, -0.6), (0.8, 0.8, 0.0), (0.8, 0.8, 0.6), (1.0, 0.5, -0.5))


@dataclass(frozen=True)
class Setting(Config):
    """Permuted digits and a network of binary weights that learns them, the same for every arm."""

    tasks: int = setting(5, "number of permutations", low=2, high=100)
    train_samples: int | None = setting(4000, "training images per task", low=1)
    validation_samples: int = setting(1000, "images per task that settings are chosen on", low=1)
    test_samples: int | None = setting(1000, "images per task that the result is judged on", low=1)
    dataset: str = setting("mnist", "images to permute")
    hidden: int = setting(200, "neurons of the hidden layer", low=1)
    epochs: int = setting(2, "passes over each task", low=1)
    batch_size: int = setting(64, "images per step", low=1)
    lr: float = setting(0.005, "learning rate of Adam", low=0.0)
    scale: float = setting(0.1, "standard deviation of the initial fields or hidden weights", low=0.0)


@dataclass(frozen=True)
class MeanFieldSetting(Setting):
    """Settings of mean-field learning."""

    lr: float = setting(0.2, "learning rate of Adam", low=0.0)
    strength: float = setting(0.03, "weight of the divergence from the last task's weights", low=0.0)
    weights: int = setting(1500, "weights of the perceptron that is held against the theory", low=50)
    repeats: int = setting(4, "perceptrons whose errors are averaged", low=1)


@dataclass(frozen=True)
class BinarySetting(Setting):
    """Settings of a network with hidden weights and straight-through gradients."""

    metaplasticity: float = setting(0.0, "how fast weights consolidate as they grow; 0: not at all", low=0.0)


@dataclass(frozen=True)
class EWCSetting(BinarySetting):
    """Settings of elastic weight consolidation on the hidden weights."""

    strength: float = setting(100.0, "weight of the penalty", low=0.0)
    fisher_samples: int = setting(256, "images per task that the Fisher information is estimated on", low=1)


class _Sign(torch.autograd.Function):
    """Sign whose gradient passes straight through where the hidden weight is within 1."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:
        ctx.save_for_backward(hidden)
        return torch.where(hidden >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> Any:
        (hidden,) = ctx.saved_tensors
        return errors[0] * (hidden.abs() <= 1)


class _BinaryLinear(nn.Module):
    """Binary weights, the signs of hidden ones."""

    def __init__(self, inputs: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.hidden = nn.Parameter(scale * torch.randn(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = _Sign.apply(self.hidden)  # type: ignore[no-untyped-call]
        return nn.functional.linear(x, weight / math.sqrt(self.hidden.shape[1]))


class _Metaplasticity(Plugin):
    """Shrinks a step by `1 - tanh(m |W|)^2` where it would bring a hidden weight W nearer to zero.

    Laborieux, Ernoult, Hirtzlin, Querlioz: Synaptic metaplasticity in binarized neural networks. Nature
    Communications 2021.
    """

    def __init__(self, model: nn.Module, rate: float) -> None:
        self.weights = [layer.hidden for layer in model.modules() if isinstance(layer, _BinaryLinear)]
        self.rate = rate

    def on_gradients(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Remember where the step starts."""
        self.before = [w.detach().clone() for w in self.weights]
        return gradients

    @torch.no_grad()
    def after_step(self) -> None:
        """Take back what consolidation forbids."""
        for weight, before in zip(self.weights, self.before, strict=True):
            step = weight - before
            hold = torch.tanh(self.rate * before.abs()).square()
            weight.sub_(torch.where(step * before < 0, hold * step, 0.0))


class _Fields(Plugin):
    """How certain the weights are at the end of each task."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = [layer for layer in model.modules() if isinstance(layer, BinaryVariationalLinear)]
        self.shares: list[list[float]] = []

    def after_task(self, task: Task) -> None:
        """Histogram of the absolute mean weights of all layers, ten bins from 0 to 1."""
        m = torch.cat([layer.magnetization().detach().abs().flatten() for layer in self.layers])
        self.shares.append((torch.histc(m, 10, 0, 1) / len(m)).tolist())


def make_network(config: Setting) -> nn.Module:
    """784 inputs, a hidden layer, ten outputs; every weight binary."""
    kind: Any = BinaryVariationalLinear if isinstance(config, MeanFieldSetting) else _BinaryLinear
    return nn.Sequential(
        kind(784, config.hidden, scale=config.scale),
        nn.LayerNorm(config.hidden, elementwise_affine=False),
        nn.Tanh(),
        kind(config.hidden, 10, scale=config.scale),
    )


def make_plugins(config: Any, model: nn.Module, seed: int) -> list[Plugin]:
    """What protects earlier tasks in an arm."""
    if isinstance(config, MeanFieldSetting):
        return [MeanFieldPrior(model, strength=config.strength)] if config.strength else []
    if isinstance(config, EWCSetting):
        generator = torch.Generator().manual_seed(seed)
        return [EWC(model, strength=config.strength, samples=config.fisher_samples, generator=generator)]
    return [_Metaplasticity(model, config.metaplasticity)] if config.metaplasticity else []


def trial(trial: Trial) -> Outcome:
    """One arm on one stream of permutations."""
    config: Any = trial.config
    stream = data.permuted(
        config.dataset, config.tasks, seed=trial.seed, train_samples=config.train_samples,
        validation_samples=config.validation_samples, test_samples=config.test_samples,
    )  # fmt: skip
    model = make_network(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    plugins = make_plugins(config, model, trial.seed)
    fields = _Fields(model)
    watched = [*plugins, fields] if fields.layers else plugins
    trainer = Trainer(
        model, optimizer, plugins=watched, epochs=config.epochs, batch_size=config.batch_size, seed=trial.seed,
        progress=False,
    )  # fmt: skip
    started = time.perf_counter()
    history = trainer.fit(stream, evaluate_on=trial.evaluate_on)
    seconds = time.perf_counter() - started
    learned = [row[i] or 0.0 for i, row in enumerate(history.accuracy_matrix)]
    metrics: dict[str, float | None] = {
        "acc": history.average_accuracy, "bwt": history.backward_transfer,
        "new_task": sum(learned) / len(learned),
    }  # fmt: skip
    cost = {"seconds": seconds, "milliseconds_per_step": 1000 * seconds / trainer.step}
    arrays: dict[str, Any] = {"accuracy_matrix": history.accuracy_matrix}
    curves: dict[str, Sequence[float | None]] = {
        "loss": history.losses[:: max(1, len(history.losses) // 100)]
    }
    if fields.shares:
        curves["certainty"] = fields.shares[-1]
    if trial.arm == "meanfield" and trial.evaluate_on == "test":
        found = simulate(config, trial.seed)
        metrics |= {
            "theory_agreement": 1 - found["gap"], "similarity_gain": found["similarity_gain"],
        }  # fmt: skip
        curves |= {"perceptron_theory": found["theory"], "perceptron_simulation": found["simulation"]}
        cost["overhead"] = _overhead(config, model, plugins, optimizer)
    return Outcome(metrics, cost, curves, arrays)


def simulate(config: MeanFieldSetting, seed: int) -> dict[str, Any]:
    """Perceptrons that learn two tasks by message passing, beside what the theory says of them.

    `gap` is the largest difference over settings and errors; `similarity_gain` the least drop of the error on task one
    after task two from one correlation of the teachers to the next higher one.
    """
    generator = torch.Generator().manual_seed(seed)
    theory, simulation = [], []
    for alpha1, alpha2, r0 in PERCEPTRONS:
        known = two_task_perceptron_state_evolution(alpha1, alpha2, r0)
        theory += [known.first_error, known.second_error, known.first_error_after_second]
        runs = [_two_tasks(config.weights, alpha1, alpha2, r0, generator) for _ in range(config.repeats)]
        simulation += torch.tensor(runs, dtype=torch.double).mean(0).tolist()
    kept = simulation[2:9:3]  # the three correlations at the same numbers of samples
    return {
        "gap": max(abs(a - b) for a, b in zip(theory, simulation, strict=True)),
        "similarity_gain": min(kept[0] - kept[1], kept[1] - kept[2]),
        "theory": theory,
        "simulation": simulation,
    }


def _two_tasks(n: int, alpha1: float, alpha2: float, r0: float, generator: torch.Generator) -> list[float]:
    """Error of task one, of task two after it, and then of task one again."""
    first = torch.where(torch.rand(n, generator=generator) < 0.5, 1.0, -1.0)
    second = torch.where(torch.rand(n, generator=generator) < (1 + r0) / 2, first, -first)
    field, means = None, []
    for alpha, teacher in ((alpha1, first), (alpha2, second)):
        x = torch.randn(round(alpha * n), n, generator=generator)
        labels = torch.where(x @ teacher >= 0, 1.0, -1.0)
        posterior = perceptron_amp(x, labels, field, damping=0.1)
        field = posterior.field
        means.append(posterior.mean)
    return [_error(means[0], first), _error(means[1], second), _error(means[1], first)]


def _error(mean: Tensor, teacher: Tensor) -> float:
    """Chance that `sign(mean . x)` differs from the teacher's for a Gaussian `x`."""
    cosine = float(mean @ teacher / (mean.norm() * teacher.norm()))
    return math.acos(min(1.0, max(-1.0, cosine))) / math.pi


def _overhead(config: Setting, model: nn.Module, plugins: list[Plugin], optimizer: Optimizer) -> float:
    """Time of a step over that of the same network with real weights, both with Adam."""
    x, y = torch.rand(config.batch_size, 784), torch.arange(config.batch_size) % 10
    plain = nn.Sequential(
        nn.Linear(784, config.hidden, bias=False),
        nn.LayerNorm(config.hidden, elementwise_affine=False),
        nn.Tanh(),
        nn.Linear(config.hidden, 10, bias=False),
    )

    def step(model: nn.Module, optimizer: Optimizer, plugins: list[Plugin]) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(x), y)
        for plugin in plugins:
            loss = plugin.on_loss(loss, None)  # type: ignore[arg-type]
        torch.autograd.backward(loss)
        optimizer.step()

    other = torch.optim.Adam(plain.parameters(), lr=config.lr)
    model.train()
    return overhead(lambda: step(plain, other, []), lambda: step(model, optimizer, plugins), rounds=30)


study = Study(
    id="binary-meanfield",
    summary=(
        "A network of binary weights learns permuted digits in turn through the mean of each weight: weights that have "
        "become certain hardly move, and more is kept than with metaplastic hidden weights. For a perceptron, theory "
        "predicts the errors of two tasks in a row."
    ),
    citation="""@article{li2023statistical,
  title   = {Statistical mechanics of continual learning: variational principle and mean-field potential},
  author  = {Li, Chan and Huang, Zhenye and Huang, Haiping},
  journal = {Physical Review E},
  volume  = {108},
  pages   = {014309},
  year    = {2023}
}""",
    arms={
        "meanfield": MeanFieldSetting(),
        "no_prior": MeanFieldSetting(strength=0.0, lr=0.02),
        "metaplastic": BinarySetting(metaplasticity=10.0),
        "ewc": EWCSetting(),
        "straight_through": BinarySetting(),
    },
    search={
        "meanfield": {"lr": (0.1, 0.2, 0.3), "strength": (0.01, 0.03, 0.1)},
        "no_prior": {"lr": (0.01, 0.02, 0.05, 0.1), "scale": (0.05, 0.1)},
        "metaplastic": {"lr": (0.002, 0.005), "metaplasticity": (3.0, 5.0, 10.0, 15.0)},
        "ewc": {"lr": (0.002, 0.005), "strength": (30.0, 100.0, 300.0, 1000.0)},
        "straight_through": {"lr": (0.001, 0.002, 0.005, 0.01), "scale": (0.05, 0.1)},
    },
    trial=trial,
    data=lambda config: data.load(config.dataset).checksum,
    seeds=32,
    first_seed=8,  # the eight before left the primary claim undecided and served to choose how many are needed
    claims=(
        exceeds(
            "meanfield.acc", "metaplastic.acc", by=0.01, primary=True,
            text="mean-field learning ends at least a point above metaplastic hidden weights",
        ),
        exceeds("meanfield.acc", "ewc.acc", by=0.01, text="and at least a point above EWC on hidden weights"),
        exceeds(
            "meanfield.acc", "no_prior.acc", by=0.01,
            text="the prior of the last task is worth at least a point in the end",
        ),
        exceeds("meanfield.bwt", "no_prior.bwt", by=0.01, text="and saves at least a point of forgetting"),
        at_least(
            "meanfield.theory_agreement", 0.98,
            text="theory and simulation of the perceptron differ by at most 0.02 in every error",
        ),
        at_least(
            "meanfield.similarity_gain", 0.02,
            text="the more alike two tasks' teachers, the less of the first perceptron task is forgotten",
        ),
    ),
    scales={
        "smoke": {
            "tasks": 2, "train_samples": 500, "validation_samples": 100, "test_samples": 100, "hidden": 40, "epochs": 1,
            "meanfield.weights": 200, "no_prior.weights": 200, "meanfield.repeats": 1, "ewc.fisher_samples": 32,
        },
        "paper": {
            "dataset": "mnist-full", "tasks": 5, "train_samples": None, "test_samples": None, "hidden": 500,
            "epochs": 20,
        },
    },
    figures=(
        figures.AccuracyMatrix(),
        figures.TaskCurves(),
        figures.LearningCurves(
            "certainty", title="How certain weights are in the end",
            x_title="absolute mean weight, tenths from 0 to 1", y_title="share of weights",
        ),
        figures.LearningCurves(
            "perceptron_theory", title="Perceptron: errors of two tasks, theory",
            caption=(
                "Three errors for each of four settings: task one, then task two, then task one again. Samples a "
                "weight and correlation of the teachers: .8 .8 -.6, .8 .8 0, .8 .8 .6, 1 .5 -.5."
            ),
            x_title="error", y_title="generalization error",
        ),
        figures.LearningCurves(
            "perceptron_simulation", title="Perceptron: errors of two tasks, simulation",
            caption="The same twelve errors, found by message passing.", x_title="error",
            y_title="generalization error",
        ),
        figures.LearningCurves("loss", title="Training loss", x_title="share of training, %"),
        figures.CostBars(),
    ),
    notes=(
        "The paper reports that its variational learning solves sequences of permuted digits better than metaplastic "
        "hidden weights, with fully connected binary networks and many epochs. Here both are tuned on the same budget "
        "with normalised inputs, and metaplasticity is a much stronger baseline than without that. The divergence is "
        "divided by the number of samples and weighted 0.01 to 0.1: at weight 1, the evidence bound itself, new tasks "
        "are learned badly. The prior is not free: right after learning, a new task is answered worse than without it, "
        "and backward transfer above zero is partly later tasks completing what was begun. The theory is not the "
        "paper's Franz-Parisi potential but the state evolution of message passing for the same learner, sequential "
        "Bayes with one field a weight. Errors of the theory are those of the mean weights' sign; it holds for many "
        "weights, so simulations of 1500 are averaged. Near 1.25 samples a weight, where the posterior jumps, message "
        "passing wants damping. Use it where weights are to be binary; a step draws two matrix products where an "
        "ordinary layer has one, and with its prior costs about four times as much."
    ),
)  # fmt: skip
