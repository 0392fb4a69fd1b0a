"""Continual league: every mechanism and baseline of the room on the same four changing worlds."""

from __future__ import annotations

import itertools
from typing import Any

from torch.optim import SGD

from neuropil import data
from neuropil.bench import figures, figures_trade
from neuropil.bench.claim import exceeds
from neuropil.bench.overhead import overhead
from neuropil.bench.study import Outcome, Study, Trial
from neuropil.data.task import Stream
from neuropil.studies.continual._league_arms import (
    BinarySetting,
    FastSlowSetting,
    LeagueSetting,
    MemorySetting,
    PenaltySetting,
    ProjectionSetting,
    PrototypeSetting,
    RegulatedSetting,
    UsageSetting,
    make_learner,
    make_model,
    make_network,
    make_stream,
)
from neuropil.studies.continual._life import live, live_together, tensors
from neuropil.training import Backprop

WORLDS = ("permuted", "split", "corrupted", "concept")


def trial(trial: Trial) -> Outcome:
    """One arm in all worlds, a new network in each."""
    config: LeagueSetting = trial.config
    metrics: dict[str, float | None] = {}
    cost: dict[str, float] = {"seconds": 0.0, "numbers_remembered": 0.0}
    curves, arrays = {}, {}
    for world in WORLDS:
        stream = make_stream(world, config, trial.seed)
        model = make_model(trial.arm, config, stream.n_classes)
        learner = make_learner(trial.arm, config, model, stream, trial.seed)
        outcome = (live_together if trial.arm == "joint" else live)(
            learner, stream, epochs=1 if world == "concept" else config.epochs,
            batch_size=config.batch_size, seed=trial.seed, evaluate_on=trial.evaluate_on,
        )  # fmt: skip
        if trial.arm != "joint":
            metrics[f"bwt_{world}"] = outcome.metrics["bwt"]
            metrics[f"new_{world}"] = outcome.metrics["new_task"]
            arrays[f"accuracy_{world}"] = outcome.arrays["accuracy_matrix"]
        metrics[f"acc_{world}"] = outcome.metrics["acc"]
        curves[f"loss_{world}"] = outcome.curves["loss"]
        cost["seconds"] += outcome.cost["seconds"]
        beside = outcome.cost["numbers_remembered"] + _kept_by(trial.arm, learner)
        cost["numbers_remembered"] = max(cost["numbers_remembered"], beside)
        if world == "permuted" and trial.evaluate_on == "test" and trial.scale != "smoke":
            cost["overhead"] = _overhead(trial.arm, config, stream, trial.seed)
    kept = [metrics[f"acc_{world}"] or 0.0 for world in WORLDS[:3]]
    metrics["keeps"] = sum(kept) / len(kept)
    metrics["adapts"] = metrics.get("new_concept", metrics["acc_concept"])
    metrics["acc"] = (sum(kept) + (metrics["adapts"] or 0.0)) / 4
    return Outcome(metrics, cost, curves, arrays)


def _kept_by(arm: str, learner: Backprop) -> int:
    """Numbers that an arm remembers outside its plugins: usage in an optimizer, inputs met, prototypes."""
    if arm == "classp":
        return sum(p.numel() for p in learner.model.parameters())
    if arm == "homeostatic":
        kept = {key: value for key, value in learner.state_dict().items() if key != "optimizer"}
        return sum(t.numel() for t in tensors(kept) if t.is_floating_point())
    return sum(buffer.numel() for buffer in learner.model.buffers())


def _overhead(arm: str, config: Any, stream: Stream, seed: int) -> float:
    """Time of a training step over that of plain SGD on the common network, amid the last task of a short life.

    Many mechanisms rest before the second task and after the last one; a life of a few steps a task, of its own,
    has all of them at work and leaves the judged network alone.
    """
    model, plain_model = make_model(arm, config, stream.n_classes), make_network(config, stream.n_classes)
    learner = make_learner(arm, config, model, stream, seed)
    plain = Backprop(plain_model, SGD(plain_model.parameters(), lr=config.lr))
    last = len(stream) - 1
    for task in stream:
        for plugin in learner.plugins:
            plugin.before_task(task)
        learner.start_task()
        model.train()
        steps = list(itertools.islice(data.batches(task.train, config.batch_size), 3))
        for batch in steps:
            learner.update(batch)
        if task.index == last:
            break
        for plugin in learner.plugins:
            plugin.after_task(task)
    return overhead(lambda: plain.update(steps[0]), lambda: learner.update(steps[0]), rounds=15)


_RATES = (0.03, 0.1, 0.2)
_PENALTY: dict[str, tuple[float, ...]] = {
    "l2": (0.001, 0.003, 0.01, 0.03),
    "ewc": (1.0, 3.0, 10.0, 30.0),
    "online_ewc": (1.0, 3.0, 10.0, 30.0),
    "si": (0.1, 0.3, 1.0, 3.0),
    "mas": (0.01, 0.03, 0.1, 0.3),
    "lwf": (0.03, 0.1, 0.3, 1.0),
    "features": (0.0003, 0.001, 0.003),
}
_BATCHES = {"lr": _RATES, "replay_batch": (16, 32, 64)}

study = Study(
    id="continual-league",
    summary=(
        "Twenty-one ways of learning task after task in four changing worlds: other pixels, other classes, other "
        "weather, other names. What they keep, whether they still adapt, what they remember and what a step costs."
    ),
    citation="""@article{vandeven2022three,
  title   = {Three types of incremental learning},
  author  = {van de Ven, Gido M. and Tuytelaars, Tinne and Tolias, Andreas S.},
  journal = {Nature Machine Intelligence},
  volume  = {4},
  year    = {2022}
}""",
    arms={
        "finetune": LeagueSetting(),
        **{arm: PenaltySetting(strength=values[1]) for arm, values in _PENALTY.items()},
        "fast_slow": FastSlowSetting(strength=3.0),
        "homeostatic": RegulatedSetting(lr=0.03),
        "meanfield": BinarySetting(),
        "hlop": ProjectionSetting(lr=0.03, protect=0.2),
        "gpm": ProjectionSetting(protect=0.7),
        "owm": ProjectionSetting(damping=100.0),
        "classp": UsageSetting(),
        "agem": MemorySetting(),
        "gem": MemorySetting(),
        "replay": MemorySetting(),
        "replay_power": MemorySetting(),
        "replay_balanced": MemorySetting(),
        "proto_bayes": PrototypeSetting(),
        "joint": LeagueSetting(),
    },
    search={
        "finetune": {"lr": (0.01, *_RATES), "batch_size": (16, 32)},
        **{arm: {"lr": _RATES, "strength": values} for arm, values in _PENALTY.items()},
        "fast_slow": {"lr": _RATES, "strength": (1.0, 10.0), "step": (0.2, 0.5)},
        "homeostatic": {"lr": (0.01, 0.03, 0.1), "share": (0.01, 0.03, 0.1)},
        "meanfield": {"lr": (0.03, 0.1, 0.2), "strength": (0.01, 0.03, 0.1)},
        "hlop": {"lr": (0.03, 0.05, 0.07), "protect": (0.1, 0.2, 0.3, 0.5)},
        "gpm": {"lr": _RATES, "protect": (0.5, 0.6, 0.7, 0.8)},
        "owm": {"lr": _RATES, "damping": (10.0, 30.0, 100.0, 300.0)},
        "classp": {"later_lr": (0.003, 0.01, 0.03, 0.1), "quantile": (0.0, 0.8)},
        "agem": _BATCHES,
        "gem": {"lr": _RATES, "margin": (0.0, 0.2, 0.5)},
        "replay": _BATCHES,
        "replay_power": _BATCHES,
        "replay_balanced": _BATCHES,
        "proto_bayes": {"lr": (1e-3, 3e-3), "noise": (1.0, 10.0), "replay_batch": (32, 64)},
        "joint": {"lr": (0.01, *_RATES), "batch_size": (16, 32)},
    },
    trial=trial,
    tune_trials=5,
    seeds=8,
    first_seed=10,
    data=lambda config: data.load("mnist").checksum + data.load("fashion-mnist").checksum,
    claims=(
        exceeds(
            "replay.acc", "ewc.acc", by=0.03, primary=True,
            text="200 remembered images are worth 3 points more, over all worlds, than springs on the weights (EWC)",
        ),
        exceeds("replay.acc", "finetune.acc", by=0.05, text="replay is 5 points above fine-tuning over all worlds"),
        exceeds(
            "gpm.acc", "finetune.acc", by=0.03,
            text="without any image, protected directions (GPM) are 3 points above fine-tuning",
        ),
        exceeds("gem.keeps", "finetune.keeps", by=0.02, text="bounds by remembered images (GEM) keep 2 points more"),
        exceeds(
            "hlop.acc_permuted", "finetune.acc_permuted", by=0.0,
            text="where pixels are permuted, HLOP ends above fine-tuning",
        ),
        exceeds(
            "finetune.adapts", "hlop.adapts", by=0.0,
            text="where names change, a network that protects what it knew learns the new names worse",
        ),
    ),
    scales={
        "smoke": {
            "tasks": 2, "train_samples": 100, "validation_samples": 40, "test_samples": 40, "hidden": (16,),
            "epochs": 1, **{f"{arm}.samples": 8 for arm in ("ewc", "online_ewc", "mas", "fast_slow")},
        },
    },
    figures=(
        figures_trade.TradeOff(
            "acc", ("numbers_remembered", "overhead"), "Accuracy against memory and time",
            "Mean over the four worlds against the numbers remembered beside the network, and against the time of a "
            "training step relative to plain SGD. Dashed: what no other arm beats in both.",
        ),
        figures_trade.TradeOff(
            "keeps", ("numbers_remembered",), "What is kept against memory",
            "Mean accuracy on all tasks of the three worlds whose answers do not contradict each other.",
        ),
        figures.MetricStrip("acc_permuted", "Other pixels: final accuracy"),
        figures.MetricStrip("acc_split", "Other classes: final accuracy"),
        figures.MetricStrip("acc_corrupted", "Other weather: final accuracy"),
        figures.MetricStrip("adapts", "Other names: accuracy on the names of the day"),
        figures.AccuracyMatrix("accuracy_permuted", "Other pixels, task by task"),
        figures.AccuracyMatrix("accuracy_split", "Other classes, task by task"),
        figures.CostBars(("overhead", "numbers_remembered", "seconds")),
    ),
    notes=(
        "One setting of each arm, chosen with the same budget for the mean over all four worlds, serves in all of "
        "them: an arm that could be tuned for each world alone would do better there. Permuted MNIST, split "
        "Fashion-MNIST with one head (arms without images use the masked softmax, which is what lets them work at "
        "all), four corruptions of Fashion-MNIST, and Fashion-MNIST whose classes exchange names; there the mean is "
        "of the accuracy just after each task, since earlier names contradict later ones. Networks are small, plain "
        "and without biases, tasks short: the ranking need not carry over to large ones. Joint training stands for "
        "what is possible without a stream; where names change it is asked for contradictions. HLOP once diverged at "
        "the rate of 0.1 that most arms chose and is searched below it. An earlier run, seeds 0 to 4, searched it to "
        "0.03 only, which left it 6 points below fine-tuning where pixels are permuted, and left the first claim "
        "undecided (5.4 points, 2.4 to 8.5): this one has a fairer search for HLOP and eight fresh seeds."
    ),
)  # fmt: skip
