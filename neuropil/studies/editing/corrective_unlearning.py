"""Corrective unlearning: a backdoor is removed when a tenth of the poisoned images is known, and what fails at it.

When to use it: a backdoor was trained in and only some of the poisoned images are known. With 12 of 120 found,
selective synaptic dampening brings images with the patch from 6 to 75 % right, and takes clean images from 84 to 80
%. It costs 0.3 s of one core an edit, beside importances of all training images that were stored when training
ended, which the clock does not see; retraining costs 2.0 s. Keep it away from swapped labels.

What holds only in part: retraining without what was found leaves the backdoor in when it trains as the network was
trained (arm retrain, 5 %). When the rate may be searched as well (arm tuned-retrain), a third of the rate is
chosen, which in five passes learns too little to learn the patch: 56 % right, 81 % on clean images, and on six
networks dampening is not shown to be better than that. Nor is it from gradient ascent, 63 %, which costs twice as
much on clean images.

What did not work: swapped labels of two classes. Settings were chosen on the backdoor alone, and under them
dampening does not leave the two classes as they were, it ruins them: from 64 to 27 % right when a tenth of the
swaps is found, and to nothing when all are. The claim that it gains nothing there holds for that reason. In
development, keeping weighed three times as much where alpha is chosen left them mostly as they were, and undid
nothing either.

What differs from the paper: a small network and Fashion-MNIST in place of ResNets on CIFAR; the patch on 2 % of the
images; alpha is chosen for each network by accuracy on the training images minus how often the found ones are still
answered with their poisoned label. On development networks the best alpha lay anywhere from 1 or less to 100, and a
lam of 1, which undoes an alpha below 1, left the backdoor in on two of four; the search therefore goes below alpha
1 and has no lam above 0.3. Importances of single images did no better on two networks. That retraining with a
searched rate loses most of the backdoor was seen in development; the arm was then split in two, before the
evidence.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.data import TensorDataset

from neuropil.bench import figures, figures_images
from neuropil.bench.claim import at_least, exceeds
from neuropil.bench.study import Outcome, Study, Trial, setting
from neuropil.data import Arrays, gather
from neuropil.data.task import Samples
from neuropil.editing import (
    BadNetPatch,
    InterclassConfusion,
    Manipulation,
    bad_teacher,
    choose_dampening,
    corrective_accuracy,
    dampening,
    finetuned,
    gradient_ascent,
    parameter_importance,
    scrub,
)
from neuropil.editing.corrective_unlearning import ManipulatedSamples
from neuropil.editing.judging import answers
from neuropil.errors import ConfigError
from neuropil.studies.editing._setting import EDITS, Images, Setting, data_checksum, images_of, learned

CONFUSED = [
    f"confusion_{name}"
    for name in ("before", "retained_before", "few", "few_retained", "all", "all_retained")
]


@dataclass(frozen=True)
class Manipulate(Setting):
    """What was done to the training images, and how much of it was found."""

    poisoned: float = setting(0.02, "share of the training images that got the patch", low=1e-4, high=0.5)
    confused: float = setting(0.45, "share of two classes' images that swapped labels", low=0.01, high=0.99)
    few: float = setting(
        0.1, "share of the manipulated images that was found, when few were", low=1e-3, high=1.0
    )


@dataclass(frozen=True)
class Dampen(Manipulate):
    """Selective synaptic dampening."""

    alphas: tuple[float, ...] = setting(
        (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0),
        "choices of alpha; the best is chosen on the images found",
        low=0.0,
    )
    lam: float = setting(0.1, "strength of the dampening; smaller dampens more", low=0.0)
    weight: float = setting(1.0, "of what is kept against what is forgotten, where alpha is chosen", low=1e-9)


@dataclass(frozen=True)
class Train(Manipulate):
    """An edit that trains."""

    lr: float = setting(1e-3, "rate of Adam", low=0.0)
    epochs: int = setting(1, "passes over the rest", low=1)
    decay: float = setting(0.0, "decoupled weight decay of Adam", low=0.0)
    weight: float = setting(0.1, "of the ascent beside the descent", low=1e-9)
    alpha: float = setting(1.0, "weight of the teacher on the rest", low=0.0)


@dataclass(frozen=True, eq=False)
class Case:
    """A manipulation, what it made of the training images, and the network that learned them."""

    manipulation: Manipulation
    train: ManipulatedSamples
    model: nn.Module
    batch_size: int

    @cached_property
    def importance(self) -> dict[str, Tensor]:
        """Of each parameter to the manipulated training images: what is stored when training ends."""
        return parameter_importance(self.model, self.train, batch_size=self.batch_size)


def case_of(trial: Trial, kind: str) -> Case:
    """A case of a seed; a worker that computes several arms of it trains the network once."""
    config: Manipulate = trial.config
    same = Manipulate(**{name: getattr(config, name) for name in Manipulate.__dataclass_fields__})
    return _case(same, kind, trial.seed, images_of(trial))


@lru_cache(maxsize=8)
def _case(config: Manipulate, kind: str, seed: int, images: Images) -> Case:
    manipulation: Manipulation = (
        BadNetPatch(config.poisoned) if kind == "poison" else InterclassConfusion((5, 9), config.confused)
    )
    train = manipulation.manipulate(images.train.all, torch.Generator().manual_seed(seed + 3 * EDITS))
    model = learned(config, images.classes, TensorDataset(train.inputs, train.targets), seed)
    return Case(manipulation, train, model, config.batch_size)


def trial(trial: Trial) -> Outcome:
    """Manipulate, train, correct with the arm's method after few or all were found, and judge on clean images."""
    config: Manipulate = trial.config
    images = images_of(trial)
    metrics: dict[str, float | None] = {}
    arrays: dict[str, Any] = {}
    wrong, kept, seconds = [], [], 0.0
    metrics |= dict.fromkeys(CONFUSED)
    # Settings are chosen on the backdoor alone.
    for kind in ("poison", "confusion") if trial.evaluate_on == "test" else ("poison",):
        case = case_of(trial, kind)
        judge = images.judge.all
        metrics[f"{kind}_before"] = corrective_accuracy(case.model, case.manipulation, judge)
        metrics[f"{kind}_retained_before"] = answers(case.model, judge).accuracy
        for name, share in (("few", config.few), ("all", 1.0)):
            found = case.train.identified(share, torch.Generator().manual_seed(trial.seed))
            rest = torch.ones(len(case.train), dtype=torch.bool)
            rest[found] = False
            forget, retain = case.train.subset(found), case.train.subset(rest.nonzero()[:, 0])
            generator = torch.Generator().manual_seed(trial.seed + EDITS)
            method = method_of(trial.arm, config, images, case, generator)
            started = time.perf_counter()
            edited = method(case.model, forget, retain)
            seconds += time.perf_counter() - started
            metrics[f"{kind}_{name}"] = corrective_accuracy(edited, case.manipulation, judge)
            metrics[f"{kind}_{name}_retained"] = answers(edited, judge).accuracy
            if kind == "poison":  # what may be looked at when settings are chosen
                wrong.append(answers(edited, forget).accuracy)
                kept.append(answers(edited, judge).accuracy)
        if trial.arm == "ssd":
            shown = case.manipulation.affected(judge).inputs[:8, 0]
            arrays.setdefault("images", {})[kind] = shown.tolist()
    metrics["score"] = sum(kept) / len(kept) + 1 - sum(wrong) / len(wrong)
    return Outcome(metrics, {"seconds_of_edits": seconds}, {}, arrays)


def method_of(
    arm: str, config: Manipulate, images: Images, case: Case, generator: torch.Generator
) -> Callable[[nn.Module, Samples, Samples], nn.Module]:
    """The arm's way from a model, what was found and the rest to a model."""
    if isinstance(config, Dampen):
        _ = case.importance  # stored when training ends, so the clock does not see it
        return partial(dampened, config=config, case=case, at_random=generator if arm != "ssd" else None)
    if not isinstance(config, Train):
        raise ConfigError(f"arm {arm!r}: its settings are {type(config).__name__}, expected Dampen or Train")
    adam = partial(AdamW, lr=config.lr, weight_decay=config.decay)
    if arm in ("retrain", "tuned-retrain"):
        seed = int(generator.initial_seed())
        return lambda model, forget, retain: learned(config, images.classes, pairs(retain), seed, adam)
    common: dict[str, Any] = {
        "epochs": config.epochs, "batch_size": config.batch_size, "make_optimizer": adam, "generator": generator,
    }  # fmt: skip
    if arm == "finetune":
        return lambda model, forget, retain: finetuned(model, retain, **common)
    if arm == "gradient-ascent":
        return partial(gradient_ascent, weight=config.weight, **common)
    if arm == "scrub":
        return partial(scrub, alpha=config.alpha, **common)
    return partial(bad_teacher, **common)


def pairs(samples: Samples) -> TensorDataset:
    """The same pairs as two tensors."""
    return TensorDataset(*gather(cast(Arrays, samples), range(len(cast(Arrays, samples)))))


def dampened(
    model: nn.Module,
    forget: Samples,
    retain: Samples,
    *,
    config: Dampen,
    case: Case,
    at_random: torch.Generator | None,
) -> nn.Module:
    """Dampening with the alpha that unlearns what was found and keeps the rest, as far as one can know."""
    seen = parameter_importance(model, forget, batch_size=config.batch_size)
    candidates = [dampening(case.importance, seen, alpha=alpha, lam=config.lam) for alpha in config.alphas]
    if at_random is not None:
        candidates = [
            replace(
                found,
                factors={
                    name: f.flatten()[torch.randperm(f.numel(), generator=at_random)].view_as(f)
                    for name, f in found.factors.items()
                },
            )
            for found in candidates
        ]
    some = case.train.subset(range(0, len(case.train), max(1, len(case.train) // 1500)))

    def score(edited: nn.Module) -> float:
        return config.weight * answers(edited, some).accuracy - answers(edited, forget).accuracy

    return choose_dampening(model, candidates, score).apply(model)


RATES = (3e-4, 1e-3, 3e-3, 1e-2)
LAMS = (0.01, 0.03, 0.1, 0.3)

study = Study(
    id="corrective-unlearning",
    summary=(
        "Training data was manipulated and only a part of that was found: of the methods of unlearning, selective "
        "synaptic dampening removes a backdoor when a tenth is known, where retraining without the tenth does not."
    ),
    citation=(
        "@article{goel2024corrective, title={Corrective Machine Unlearning}, author={Goel, Shashwat and Prabhu, Ameya "
        "and Torr, Philip and Kumaraguru, Ponnurangam and Sanyal, Amartya}, journal={TMLR}, year={2024}}"
    ),
    arms={
        "ssd": Dampen(),
        "random-dampening": Dampen(),
        "retrain": Train(),
        "tuned-retrain": Train(),
        "finetune": Train(),
        "gradient-ascent": Train(),
        "scrub": Train(epochs=2),
        "bad-teacher": Train(),
    },
    search={
        "ssd": {"lam": LAMS, "weight": (1.0, 3.0)},
        "random-dampening": {"lam": LAMS, "weight": (1.0, 3.0)},
        "retrain": {"lr": (1e-3, 2e-3), "decay": (0.0, 0.01, 0.1, 0.3)},  # no slower than the network was trained
        "tuned-retrain": {"lr": RATES, "decay": (0.0, 0.1)},
        "finetune": {"lr": RATES, "epochs": (1, 2)},
        "gradient-ascent": {"lr": RATES, "weight": (0.03, 0.3)},
        "scrub": {"lr": (1e-4, 3e-4, 1e-3, 3e-3), "alpha": (0.1, 1.0)},
        "bad-teacher": {"lr": RATES, "epochs": (1, 2)},
    },
    trial=trial,
    objective="score",
    data=data_checksum,
    claims=(
        exceeds(
            "ssd.poison_few", "retrain.poison_few", by=0.4, primary=True,
            text="With a tenth of the poison found, dampening corrects the backdoor where retraining does not",
        ),
        exceeds(
            "ssd.poison_few", "tuned-retrain.poison_few", by=0.0,
            text="It does so better than retraining at a rate that was searched for it",
        ),
        exceeds("ssd.poison_few", "random-dampening.poison_few", by=0.3, text="Which synapses matters"),
        exceeds(
            "ssd.poison_few_retained", "ssd.poison_retained_before", by=-0.1,
            text="Correcting the backdoor costs at most 10 points on clean images",
        ),
        at_least("retrain.poison_all", 0.75, text="With all of the poison found, retraining corrects it"),
        exceeds(
            "ssd.confusion_before", "ssd.confusion_few", by=-0.05,
            text="Dampening gains at most 5 points on confused classes when a tenth of the swaps is found",
        ),
        exceeds(
            "retrain.confusion_all", "ssd.confusion_all", by=0.1,
            text="With all confused labels found, retraining undoes them and dampening does not",
        ),
    ),
    scales={
        "smoke": {
            "train_samples": 200, "validation_samples": 200, "test_samples": 200, "first_epochs": 1,
            "ssd.alphas": (10.0,), "random-dampening.alphas": (10.0,),
        },
        "laptop": {},
        "paper": {"dataset": "fashion-mnist-full", "train_samples": 55000, "first_epochs": 10},
    },
    figures=(
        figures.MetricStrip("poison_few", title="Backdoor, a tenth found: accuracy on images with the patch"),
        figures.MetricStrip("poison_all", title="Backdoor, all found"),
        figures.MetricStrip("confusion_few", title="Confused labels, a tenth found: accuracy on both classes"),
        figures.MetricStrip("confusion_all", title="Confused labels, all found"),
        figures_images.ImageRows("images", title="Images on which the manipulation shows"),
    ),
    seeds=6,
    notes="",
)  # fmt: skip
