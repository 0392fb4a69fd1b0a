"""CLASSP: digits, then clothes, with one network and one set of outputs; how much of the digits is left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuropil import data
from neuropil.bench import figures
from neuropil.bench.claim import exceeds
from neuropil.bench.overhead import overhead
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.continual import CLASSP, EWC
from neuropil.data.task import Stream, Task
from neuropil.training import Plugin, Trainer


@dataclass(frozen=True)
class Setting(Config):
    """Two data sets in turn and the network that learns them, the same for every arm."""

    first: str = setting("mnist", "images of the first task")
    second: str = setting("fashion-mnist", "images of the second task, with the same ten outputs")
    train_samples: int | None = setting(9000, "training images of each task", low=1)
    validation_samples: int = setting(1000, "images of each task that settings are chosen on", low=1)
    test_samples: int | None = setting(None, "images of each task that the result is judged on", low=1)
    hidden: int = setting(256, "neurons of the hidden layer", low=1)
    batch_size: int = setting(64, "images per step", low=1)
    first_epochs: int = setting(2, "passes over the first task", low=1)
    second_epochs: int = setting(1, "passes over the second task", low=1)
    lr: float = setting(0.2, "learning rate of the first task", low=0.0)
    second_lr: float = setting(0.02, "learning rate of the second task", low=0.0)


@dataclass(frozen=True)
class CLASSPSetting(Setting):
    """Settings of CLASSP."""

    quantile: float = setting(
        0.8, "share of weights left alone at each step of the first task", low=0.0, high=0.99
    )
    threshold: float | None = setting(
        None, "fixed threshold on squared gradients instead of the quantile", low=0.0
    )
    power: float = setting(1.0, "exponent of the usage", low=0.1)
    eps: float = setting(0.03, "added to the usage", low=1e-8)
    scaled: bool = setting(True, "whether usage suppresses the adjustments of the second task")
    rule: str = setting(
        "weight", "whether weights or whole tensors meet the threshold", choices=("weight", "tensor")
    )


@dataclass(frozen=True)
class AdagradSetting(Setting):
    """Settings of AdaGrad, whose sum of squares is kept from task to task."""

    lr: float = setting(0.03, "learning rate of the first task", low=0.0)
    second_lr: float = setting(0.006, "learning rate of the second task", low=0.0)


@dataclass(frozen=True)
class EWCSetting(Setting):
    """Settings of elastic weight consolidation."""

    strength: float = setting(100.0, "weight of the penalty", low=0.0)
    fisher_samples: int = setting(500, "images that the Fisher information is estimated on", low=1)


class _Switch(Plugin):
    """After the first task: counts the weights that it never moved, and goes over to the second task's settings."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, config: Any) -> None:
        self.model, self.optimizer, self.config = model, optimizer, config
        self.start = self.learned = _weights(model)
        self.bins = torch.zeros_like(self.start, dtype=torch.long)
        self.untouched = 0.0
        self.usage: list[float] = []
        self.movement: list[float] = []

    def after_task(self, task: Task) -> None:
        """Look, and switch."""
        now = _weights(self.model)
        if task.index:
            if self.usage:
                self.movement = _mean_in_bins((now - self.learned).abs(), self.bins)
            return
        self.untouched = float((now == self.start).float().mean())
        self.learned = now
        optimizer = self.optimizer
        if isinstance(optimizer, CLASSP):
            usage = torch.cat([optimizer.state[p]["usage"].flatten() for p in self.model.parameters()])
            self.bins = usage.argsort().argsort() * 20 // len(usage)
            self.usage = _mean_in_bins(usage, self.bins)
            if self.config.scaled:
                optimizer.protect(lr=self.config.second_lr)
                return
        for group in optimizer.param_groups:
            group["lr"] = self.config.second_lr


def _weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def _mean_in_bins(values: Tensor, bins: Tensor) -> list[float]:
    sums = torch.zeros(20).index_add_(0, bins, values)
    found: list[float] = (sums / bins.bincount(minlength=20)).tolist()
    return found


class _StableEWC(EWC):
    """EWC whose stiffest springs are as stiff as a step can follow: `rate * strength * F` is at most 1."""

    rate = 0.0

    def consolidate(self, stiffness: dict[str, Tensor]) -> None:
        """Hold the weights, none so tightly that steps would overshoot ever further."""
        most = 1 / max(self.rate * self.strength, 1e-12)
        super().consolidate({name: value.clamp(max=most) for name, value in stiffness.items()})


class _KeptAdagrad(torch.optim.Adagrad):
    """AdaGrad that keeps its sums when a task begins."""

    def start_task(self) -> None:
        """Keep everything."""


def make_optimizer(config: Any, model: nn.Module) -> Optimizer:
    """The optimizer of an arm, set for the first task."""
    if isinstance(config, AdagradSetting):
        return _KeptAdagrad(model.parameters(), lr=config.lr)
    if isinstance(config, CLASSPSetting):
        limit: dict[str, Any] = (
            {"threshold": config.threshold} if config.threshold is not None else {"quantile": config.quantile}
        )
        rule: Any = config.rule
        return CLASSP(
            model.parameters(), lr=config.lr, power=config.power, eps=config.eps, rule=rule, **limit
        )
    return torch.optim.SGD(model.parameters(), lr=config.lr)


def make_stream(config: Setting, seed: int) -> Stream:
    """The two tasks of a trial."""
    sizes: dict[str, Any] = {
        "train_samples": config.train_samples,
        "validation_samples": config.validation_samples,
        "test_samples": config.test_samples,
    }
    names = (config.first, config.second)
    return data.stream(
        [data.rotated(name, angles=[0.0], seed=seed, **sizes)[0] for name in names], n_classes=10
    )


def make_network(config: Setting) -> nn.Module:
    """A perceptron with one hidden layer."""
    return nn.Sequential(nn.Linear(784, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 10))


def trial(trial: Trial) -> Outcome:
    """One arm on digits, then on clothes."""
    config: Any = trial.config
    stream, model = make_stream(config, trial.seed), make_network(config)
    optimizer = make_optimizer(config, model)
    switch = _Switch(model, optimizer, config)
    plugins: list[Plugin] = []
    if isinstance(config, EWCSetting):
        generator = torch.Generator().manual_seed(trial.seed)
        springs = _StableEWC(
            model, strength=config.strength, samples=config.fisher_samples, generator=generator
        )
        springs.rate = config.second_lr
        plugins.append(springs)
    trainer = Trainer(
        model, optimizer, plugins=[*plugins, switch], batch_size=config.batch_size, seed=trial.seed,
        progress=False,
    )  # fmt: skip
    started = time.perf_counter()
    matrix, losses = [], []
    for index, epochs in enumerate((config.first_epochs, config.second_epochs)):
        trainer.epochs = epochs
        history = trainer.fit(stream[index : index + 1], evaluate_on=trial.evaluate_on)
        losses += history.losses
        matrix.append([trainer.evaluate(task, trial.evaluate_on) for task in stream])
    seconds = time.perf_counter() - started
    (learned, _), (kept, new) = matrix
    metrics = {
        "acc": (kept + new) / 2, "bwt": kept - learned, "first_task": kept, "second_task": new,
        "untouched": switch.untouched,
    }  # fmt: skip
    cost = {"seconds": seconds}
    if trial.evaluate_on == "test" and (plugins or isinstance(optimizer, CLASSP)):
        cost["overhead"] = _overhead(config, model, plugins, optimizer)
    arrays: dict[str, Any] = {"accuracy_matrix": matrix}
    curves = {"loss": losses[:: max(1, len(losses) // 100)]}
    if switch.movement:
        curves |= {"usage": switch.usage, "movement": switch.movement}
    return Outcome(metrics, cost, curves, arrays)


def _overhead(config: Setting, model: nn.Module, plugins: list[Plugin], optimizer: Optimizer) -> float:
    """Time of a step of the second task over that of plain SGD."""
    x, y = torch.rand(config.batch_size, 784), torch.arange(config.batch_size) % 10
    other = make_network(config)
    plain = torch.optim.SGD(other.parameters(), lr=0.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.0

    def step(model: nn.Module, plugins: list[Plugin], optimizer: Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(x), y)
        for plugin in plugins:
            loss = plugin.on_loss(loss, None)  # type: ignore[arg-type]
        torch.autograd.backward(loss)
        optimizer.step()

    return overhead(lambda: step(other, [], plain), lambda: step(model, plugins, optimizer), rounds=30)


def checksum(config: Setting) -> str:
    """What identifies the images that a trial reads."""
    return data.load(config.first).checksum + data.load(config.second).checksum


_TWO_RATES = {"lr": (0.2, 0.4), "second_lr": (0.01, 0.02, 0.03, 0.05)}

study = Study(
    id="classp",
    summary=(
        "One network learns digits, then clothes, with the same ten outputs. Each weight remembers how much the digits "
        "used it and moves the less for clothes: more of both is known in the end than with EWC or plain training."
    ),
    citation="""@article{ludwig2024classp,
  title   = {{CLASSP}: a Biologically-Inspired Approach to Continual Learning through Adjustment Suppression and
             Sparsity Promotion},
  author  = {Ludwig, Oswaldo},
  journal = {arXiv preprint arXiv:2405.09637},
  year    = {2024}
}""",
    arms={
        "classp": CLASSPSetting(),
        "no_suppression": CLASSPSetting(scaled=False),
        "no_threshold": CLASSPSetting(quantile=0.0),
        "sparse": CLASSPSetting(quantile=0.97),
        "released": CLASSPSetting(threshold=0.5, rule="tensor"),
        "adagrad": AdagradSetting(),
        "sgd": Setting(),
        "ewc": EWCSetting(),
    },
    search={
        "classp": _TWO_RATES,
        "no_suppression": _TWO_RATES,
        "no_threshold": _TWO_RATES,
        "sparse": _TWO_RATES,
        "released": _TWO_RATES,
        "adagrad": {"lr": (0.03, 0.06), "second_lr": (0.001, 0.003, 0.006, 0.01)},
        "sgd": _TWO_RATES,
        "ewc": {"lr": (0.2, 0.4), "second_lr": (0.02, 0.04), "strength": (100.0, 300.0)},
    },
    trial=trial,
    data=checksum,
    claims=(
        exceeds(
            "classp.acc", "sgd.acc", by=0.01, primary=True,
            text="CLASSP knows at least 1 point more of both tasks than SGD with its best two rates",
        ),
        exceeds("classp.acc", "ewc.acc", by=0.005, text="CLASSP is at least half a point ahead of EWC"),
        exceeds(
            "classp.acc", "no_suppression.acc", by=0.01,
            text="suppression does it: with the threshold alone, at least 1 point less is known",
        ),
        exceeds(
            "classp.acc", "released.acc", by=0.0,
            text="the published rule is better than the released code's, which takes tensors whole",
        ),
        exceeds(
            "sparse.untouched", "no_threshold.untouched", by=0.2,
            text="a threshold at the 97 % quantile leaves 20 % more of the weights untouched by the first task",
        ),
        exceeds("sparse.acc", "no_threshold.acc", by=-0.02, text="and costs at most 2 points of accuracy"),
    ),
    scales={
        "smoke": {
            "train_samples": 500, "validation_samples": 100, "test_samples": 100, "hidden": 64, "first_epochs": 1,
            "ewc.fisher_samples": 32,
        },
        "paper": {
            "first": "mnist-full", "second": "fashion-mnist-full", "train_samples": None, "test_samples": None,
            "first_epochs": 4,
        },
    },
    objective="acc",
    figures=(
        figures.MetricStrip("acc"),
        figures.MetricStrip("first_task", title="Digits, after clothes"),
        figures.MetricStrip("second_task", title="Clothes"),
        figures.MetricStrip("untouched", title="Weights that digits never moved"),
        figures.LearningCurves(
            "movement", title="How far clothes move a weight", x_title="usage by digits, twentieths of all weights",
            y_title="mean movement",
        ),
        figures.LearningCurves("loss", title="Training loss", x_title="share of training, %"),
        figures.CostBars(("seconds", "overhead")),
    ),
    notes=(
        "The paper reports digits kept better than with EWC at similar accuracy on clothes; its setting is a "
        "convolutional network and all images. Here every arm chooses its rate for each of the two tasks, which "
        "the published comparison does not: most of the gap to plain SGD closes when its second rate is lowered, "
        "so the primary margin is 1 point. Inputs are normalised; with raw pixels in [0, 1], where many inputs are "
        "always zero, SGD forgets more and the gap is wider. Thresholds of the paper (0.5 on squared gradients) "
        "would leave out nearly every adjustment at a mean loss: the threshold is a quantile here, estimated every "
        "20 steps. As other weights pass it at every batch, few weights stay untouched by two epochs unless nearly "
        "all are left out (arm sparse). EWC's springs are capped where a step would overshoot: without that, its "
        "run diverged on one of five seeds and the evidence was run anew. The released code tests a tensor as a "
        "whole and drops the power: arm released. Use it where EWC's extra pass over a task's data is not wanted: "
        "it remembers one number per weight where EWC remembers two, and its step costs little more than SGD's."
    ),
)  # fmt: skip
