"""Power-law rehearsal: an environment in which earlier tasks come back ever more rarely is enough to keep them.

In the first run, on seeds 0 to 4, the primary claim was undecided (6.8 points, 5.0 to 8.5, 6 asked for); this one, on
fresh seeds and with the same margin, decides it. Ahead of EWC by 3 points it is not: EWC's springs, once their strength
and the rate are searched, keep almost as much (half a point less), and synaptic intelligence keeps as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.optim import Adam, Optimizer

from neuropil import data
from neuropil.bench import figures, figures_trade
from neuropil.bench.claim import equivalent, exceeds
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.continual import EWC, SI, LwF, RehearsalSchedule, Replay, RingBuffer
from neuropil.studies.continual._life import live, live_together, step_overhead
from neuropil.training import Backprop, Plugin


@dataclass(frozen=True)
class EnvironmentSetting(Config):
    """A stream of permuted digits, a network, and what comes back of earlier tasks."""

    dataset: str = setting("mnist", "images to learn, their pixels in another order in every task")
    tasks: int = setting(8, "number of tasks", low=2, high=50)
    train_samples: int = setting(2000, "training images per task", low=1)
    validation_samples: int = setting(400, "images per task that settings are chosen on", low=1)
    test_samples: int = setting(1000, "images per task that the result is judged on", low=1)
    hidden: int = setting(100, "neurons in the hidden layer", low=1)
    lr: float = setting(2e-3, "learning rate of Adam", low=0.0)
    epochs: int = setting(3, "passes over each task", low=1)
    batch_size: int = setting(64, "images per step", low=1)


@dataclass(frozen=True)
class RehearsalSetting(EnvironmentSetting):
    """Images of earlier tasks in every step, the same number whatever the schedule."""

    kind: str = setting("power", "how rehearsal fades with lag", choices=("power", "exponential", "uniform"))
    rate: float = setting(1.0, "how fast it fades", low=0.0)
    budget: int = setting(5, "images of earlier tasks in every step", low=1)


@dataclass(frozen=True)
class PenaltySetting(EnvironmentSetting):
    """A penalty, and nothing comes back."""

    strength: float = setting(10.0, "weight of the penalty", low=0.0)
    fisher_samples: int = setting(128, "images per task that the Fisher information is estimated on", low=1)


def make_plugins(
    arm: str, config: EnvironmentSetting, model: nn.Module, generator: torch.Generator
) -> list[Plugin]:
    """What an arm adds to learning."""
    if isinstance(config, RehearsalSetting):
        schedule = RehearsalSchedule(config.kind, config.rate)  # type: ignore[arg-type]
        pool = RingBuffer(None, generator=generator)  # all that was met: an environment, no memory
        return [Replay(buffer=pool, batch_size=config.budget, schedule=schedule)]
    if isinstance(config, PenaltySetting):
        if arm == "ewc":
            return [EWC(model, strength=config.strength, samples=config.fisher_samples, generator=generator)]
        return [(SI if arm == "si" else LwF)(model, strength=config.strength)]
    return []


def trial(trial: Trial) -> Outcome:
    """One environment, or one penalty."""
    config: EnvironmentSetting = trial.config
    stream = data.permuted(
        config.dataset, config.tasks, seed=trial.seed, train_samples=config.train_samples,
        validation_samples=config.validation_samples, test_samples=config.test_samples,
    )  # fmt: skip
    model = nn.Sequential(
        nn.Linear(784, config.hidden), nn.ReLU(), nn.Linear(config.hidden, stream.n_classes)
    )

    def plain(net: nn.Module) -> tuple[Optimizer, Sequence[Plugin]]:
        return Adam(net.parameters(), lr=config.lr), ()

    plugins = make_plugins(trial.arm, config, model, torch.Generator().manual_seed(trial.seed))
    learner = Backprop(model, plain(model)[0], plugins=plugins)
    outcome = (live_together if trial.arm == "joint" else live)(
        learner, stream, epochs=config.epochs, batch_size=config.batch_size, seed=trial.seed,
        evaluate_on=trial.evaluate_on,
    )  # fmt: skip
    if trial.arm == "joint":
        return outcome
    cost = dict(outcome.cost)
    if trial.evaluate_on == "test" and trial.scale != "smoke":
        cost["overhead"] = step_overhead(learner, stream, plain, batch_size=config.batch_size)
    matrix = outcome.arrays["accuracy_matrix"]
    by_lag = matrix[-1][::-1]  # the last task first
    old = [accuracy for lag, accuracy in enumerate(by_lag) if lag >= min(4, len(by_lag) - 1)]
    later = [matrix[i][i] for i in range(1, len(matrix))]
    metrics = {
        **outcome.metrics,
        "acc_old": sum(old) / len(old),
        "facilitation": sum(later) / len(later) - matrix[0][0],
    }
    return replace(outcome, metrics=metrics, cost=cost, curves={**outcome.curves, "by_lag": by_lag})


_RATES = (5e-4, 1e-3, 2e-3, 4e-3)

study = Study(
    id="power-law-rehearsal",
    summary=(
        "Eight tasks in turn, and five images of earlier ones in every step. When a task comes back in proportion to "
        "one over the time since, as it does in natural environments, little is forgotten."
    ),
    citation="""@article{gandhi2024natural,
  title   = {Catastrophic Interference is Mitigated in Naturalistic Power-Law Learning Environments},
  author  = {Gandhi, Atith and Shah, Raj Sanjay and Marupudi, Vijay and Varma, Sashank},
  journal = {arXiv preprint arXiv:2401.10393},
  year    = {2024}
}""",
    arms={
        "power": RehearsalSetting(),
        "exponential": RehearsalSetting(kind="exponential", rate=0.693),
        "uniform": RehearsalSetting(kind="uniform"),
        "none": EnvironmentSetting(),
        "ewc": PenaltySetting(strength=30.0),
        "si": PenaltySetting(strength=10.0),
        "lwf": PenaltySetting(strength=1.0),
        "joint": EnvironmentSetting(),
    },
    search={
        "power": {"lr": _RATES, "rate": (0.5, 1.0)},
        "exponential": {"lr": _RATES, "rate": (0.693, 1.0)},
        "uniform": {"lr": _RATES, "epochs": (2, 3)},
        "none": {"lr": _RATES, "epochs": (2, 3)},
        "ewc": {"lr": _RATES, "strength": (3.0, 10.0, 30.0, 100.0)},
        "si": {"lr": _RATES, "strength": (1.0, 3.0, 10.0, 30.0)},
        "lwf": {"lr": _RATES, "strength": (0.1, 0.3, 1.0)},
        "joint": {"lr": _RATES, "epochs": (2, 3)},
    },
    trial=trial,
    seeds=24,
    first_seed=5,  # the five before left the primary claim undecided and served to choose how many are needed
    data=lambda config: data.load(config.dataset).checksum,
    claims=(
        exceeds(
            "power.acc", "none.acc", by=0.06, primary=True,
            text="power-law rehearsal ends at least 6 points above no rehearsal",
        ),
        exceeds("power.acc", "ewc.acc", by=0.03, text="power-law rehearsal is 3 points above EWC"),
        exceeds("power.acc", "si.acc", by=-0.02, text="and at most 2 points below synaptic intelligence"),
        exceeds("power.acc", "exponential.acc", by=0.0, text="a power law is better than an exponential"),
        exceeds(
            "power.acc_old", "exponential.acc_old", by=0.01,
            text="on tasks met at least four tasks ago it is 1 point better than an exponential",
        ),
        equivalent("power.acc", "uniform.acc", within=0.02, text="it is as good as uniform rehearsal"),
        exceeds(
            "power.facilitation", "none.facilitation", by=0.0,
            text="what comes back makes later tasks easier to learn",
        ),
    ),
    scales={
        "smoke": {
            "tasks": 3, "train_samples": 150, "validation_samples": 40, "test_samples": 40, "hidden": 16,
            "epochs": 1, "ewc.fisher_samples": 8,
        },
        "paper": {"dataset": "mnist-full", "tasks": 10, "train_samples": 50000, "hidden": 1000},
    },
    figures=(
        figures.MetricStrip("acc"),
        figures.LearningCurves("by_lag", title="What is left of a task", x_title="tasks since it was met"),
        figures.MetricStrip("acc_old", "Tasks met at least four tasks ago"),
        figures.AccuracyMatrix(),
        figures.TaskCurves(),
        figures_trade.TradeOff("acc", ("numbers_remembered", "overhead")),
    ),
    notes=(
        "Every schedule has the same total, five images in each step, and as many steps as any other arm. They "
        "are drawn afresh from all that was met, an environment that shows tasks again rather than a memory: hence the "
        "numbers remembered. Under a power law most of them are of the last tasks, which are not yet forgotten: it "
        "is not claimed to be better than showing all tasks alike, only to be as good, and natural. Rates of decay and "
        "of learning are searched for every arm. The paper measures forward facilitation by the steps to a "
        "criterion; here it is the accuracy on later tasks when just learned, less that on the first."
    ),
)  # fmt: skip
