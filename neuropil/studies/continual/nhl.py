"""NHL: a finished network adapts to corrupted images by Hebbian learning, without labels and without its data.

This is a second run, on sixteen fresh seeds. The first, of five, had six kinds of corruption and left its claim of half
a point undecided (0.7 points, -0.1 to 1.4), as the gain depends on the source model, whose training differs from seed
to seed. Now there are the four kinds that the claim was first measured on, Gaussian and impulse noise, defocus blur
and contrast, and the primary claim is of the noise, where development seeds show the gain to lie: 1.5 points over
batch statistics (1.1 to 2.0), where three quarters were asked for. The first claim, over all kinds, holds too: 1.0
point (0.7 to 1.4).

It is not one mechanism that does it. Under noise the modulator alone, at the larger rate that tuning gave it, is 1.1
points ahead of batch statistics, and the Hebbian step alone 2.0; both together are no better than the Hebbian step.
Contrast gains 2.2 points, all of it Hebbian; blur loses 1.1. Settings were chosen on other corruptions, and of these
speckle noise, which leaves black pixels black, was answered 0.8 points worse on development seeds: planned on those,
the claim was expected to fail. Where inputs are
smoothed already, leave the filters alone: `rate=0`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from neuropil import data
from neuropil.bench import figures
from neuropil.bench.claim import at_least, equivalent, exceeds
from neuropil.bench.figures_images import ImageRows
from neuropil.bench.overhead import overhead
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.continual import NHL, TENT, BatchNormStatistics, SourceFreeAdapter
from neuropil.training import Backprop

TUNED_ON = ("speckle_noise", "gaussian_blur", "jpeg")  # held out from the kinds that claims are judged on
JUDGED_ON = ("gaussian_noise", "impulse_noise", "defocus_blur", "contrast")


@dataclass(frozen=True)
class AdaptSetting(Config):
    """A network trained on clean images, and the corrupted ones it meets."""

    dataset: str = setting("fashion-mnist", "images: a name that `neuropil data list` shows")
    train_samples: int = setting(8000, "clean images that the network is trained on", low=1)
    epochs: int = setting(3, "passes over them", low=1)
    channels: tuple[int, ...] = setting((16, 32), "channels of the two convolutions", low=1)
    severity: int = setting(4, "severity of every corruption, 1 to 5", low=1, high=5)
    validation_samples: int = setting(1000, "images kept from training that settings are chosen on", low=1)
    test_samples: int = setting(1000, "corrupted images of each kind, met once", low=1)
    kinds: int = setting(4, "kinds of corruption", low=1, high=4)
    batch_size: int = setting(100, "images that are adapted to at a time", low=2)


@dataclass(frozen=True)
class StatisticsSetting(AdaptSetting):
    """Settings of batch statistics alone."""

    prior: float = setting(0.0, "samples that the source statistics count as", low=0.0)
    momentum: float = setting(1.0, "share by which statistics go over to a batch's", low=0.01, high=1.0)


@dataclass(frozen=True)
class TentSetting(AdaptSetting):
    """Settings of entropy minimisation."""

    lr: float = setting(1e-3, "Adam's learning rate of gains and shifts", low=0.0)


@dataclass(frozen=True)
class HebbSetting(AdaptSetting):
    """Settings of the Hebbian step."""

    rate: float = setting(0.01, "rate of the Hebbian step", low=0.0)
    temperature: float = setting(1.0, "temperature of the competition", low=0.001)


@dataclass(frozen=True)
class NHLSetting(HebbSetting):
    """Settings of the Hebbian step and the modulator."""

    lr: float = setting(1e-3, "Adam's learning rate of the modulator", low=0.0)


def network(channels: tuple[int, ...]) -> nn.Module:
    """Two convolutions with batch normalisation, and a linear answer."""
    first, second = channels
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1, bias=False), nn.BatchNorm2d(second), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(49 * second, 10),
    )  # fmt: skip


def _pixels(config: AdaptSetting) -> data.Images:
    """Images whose pixels stay in [0, 1], the unit that rate and temperature of the competition go with."""
    return replace(data.load(config.dataset), mean=0.0, std=1.0)


@cache
def source_weights(config: AdaptSetting, seed: int) -> dict[str, Tensor]:
    """The network trained on clean images; one training serves all arms of a seed that run in one process."""
    torch.manual_seed(seed)
    model = network(config.channels)
    stream = data.split(
        _pixels(config), 10, seed=seed, train_samples=config.train_samples,
        validation_samples=config.validation_samples, test_samples=1, flat=False,
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters())
    steps = config.epochs * data.n_batches(stream[0].train, 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    learner = Backprop(model, optimizer)
    for epoch in range(config.epochs):
        for batch in data.batches(stream[0].train, 64, seed=seed, epoch=epoch):
            learner.update(batch)
            schedule.step()
    return {name: value.clone() for name, value in model.state_dict().items()}


@cache
def images_met(config: AdaptSetting, seed: int, split: str, kind: str) -> tuple[Tensor, Tensor]:
    """Corrupted images `[n, 1, 28, 28]`, normalised, and their labels, for judging only."""
    judged = config.test_samples if split == "test" else 1
    sizes = {"train_samples": 1, "validation_samples": config.validation_samples, "test_samples": judged}
    task = data.corrupted(_pixels(config), (kind,), config.severity, seed=seed, flat=False, **sizes)[0]
    part = getattr(task, split)
    most = config.test_samples if split == "test" else config.test_samples // 2
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[:most]
    return data.gather(part, order)


def trial(trial: Trial) -> Outcome:
    """One arm: adapt to each kind of corruption in turn, beginning at the source model each time."""
    config: Any = trial.config
    common = AdaptSetting(**{name: getattr(config, name) for name in AdaptSetting.__dataclass_fields__})
    model = network(config.channels)
    model.load_state_dict(source_weights(common, trial.seed))
    tuning = trial.evaluate_on == "validation"
    kinds = (TUNED_ON if tuning else JUDGED_ON)[: config.kinds]
    stream = {kind: images_met(common, trial.seed, trial.evaluate_on, kind) for kind in ("clean", *kinds)}
    untouched = {
        kind: _share_right(_answers(model, x, config.batch_size), y) for kind, (x, y) in stream.items()
    }
    adapter = _ADAPTERS[trial.arm](config, model)
    metrics: dict[str, float] = {}
    through: list[Tensor] = []
    for kind, (x, y) in stream.items():
        right = (_answers(model, x, config.batch_size, adapter) == y).double()
        metrics[kind] = float(right.mean())
        if kind != "clean":
            through.append(torch.stack([part.mean() for part in right.split(config.batch_size)]))
        filters = _filters(model)
        adapter.reset()
    metrics["acc"] = sum(metrics[kind] for kind in kinds) / len(kinds)
    noisy = [metrics[kind] for kind in kinds if kind.endswith("noise")]
    metrics["noise"] = sum(noisy) / len(noisy)
    metrics["source_acc"] = sum(untouched[kind] for kind in kinds) / len(kinds)
    metrics["gain"] = metrics["acc"] - metrics["source_acc"]
    metrics["clean_change"] = metrics["clean"] - untouched["clean"]
    if tuning:
        return Outcome(metrics)
    x, y = stream[kinds[0]]
    for _ in range(3):
        answers = _answers(model, x, config.batch_size, adapter)
    metrics |= {"after_three_passes": _share_right(answers, y), "bits": histogram_bits(answers)}
    adapter.reset()
    arrays: dict[str, Any] = {"filters": {"trained": _filters(model), f"after {kinds[-1]}": filters}}
    if trial.seed == 0:
        arrays["met"] = {kind: images[:5, 0].tolist() for kind, (images, _) in stream.items()}
    curve = torch.stack(through).mean(0).tolist()
    return Outcome(metrics, _cost(adapter, model, x[: config.batch_size]), {"accuracy": curve}, arrays)


@torch.no_grad()
def _answers(
    model: nn.Module, x: Tensor, batch_size: int, adapter: SourceFreeAdapter | None = None
) -> Tensor:
    """Answers to a stream of images: adapt to a batch, then answer it, then meet the next."""
    answers = []
    model.eval()
    for batch in x.split(batch_size):
        if adapter is not None:
            adapter.update(batch)
        answers.append(model(batch).argmax(-1))
    return torch.cat(answers)


def _share_right(answers: Tensor, labels: Tensor) -> float:
    return float((answers == labels).double().mean())


def histogram_bits(answers: Tensor) -> float:
    """Entropy in bits of how often each of ten classes is answered; log2(10) when evenly, 0 after a collapse."""
    share = torch.bincount(answers, minlength=10).double() / len(answers)
    return float(torch.special.entr(share).sum() / math.log(2))


def _cost(adapter: SourceFreeAdapter, model: nn.Module, batch: Tensor) -> dict[str, float]:
    """Time of adapting to a batch and answering it, over the time of answering it as trained."""

    @torch.no_grad()
    def plain() -> None:
        model(batch)

    def adapting() -> None:
        adapter.update(batch)
        plain()

    return {"overhead": overhead(plain, adapting, rounds=10)}


def _filters(model: nn.Module) -> list[Any]:
    """The first layer's filters, each from its lowest weight (0) to its highest (1)."""
    filters = next(model.parameters()).detach()[:, 0]
    low, high = (bound(filters, (1, 2), keepdim=True) for bound in (torch.amin, torch.amax))
    images: list[Any] = ((filters - low) / (high - low)).tolist()
    return images


def _adam(lr: float) -> Any:
    return partial(torch.optim.Adam, lr=lr)


_ADAPTERS: dict[str, Any] = {
    "statistics": lambda config, model: BatchNormStatistics(
        model, prior=config.prior, momentum=config.momentum
    ),
    "tent": lambda config, model: TENT(model, optimizer=_adam(config.lr)),
    "modulator": lambda config, model: NHL(model, rate=0.0, optimizer=_adam(config.lr)),
    "hebb": lambda config, model: NHL(
        model, rate=config.rate, temperature=config.temperature, optimizer=None
    ),
    "nhl": lambda config, model: NHL(
        model, rate=config.rate, temperature=config.temperature, optimizer=_adam(config.lr)
    ),
}

_RATES = (3e-4, 1e-3, 3e-3, 1e-2)

study = Study(
    id="nhl",
    summary=(
        "A network trained on clean images meets corrupted ones, without labels. Soft Hebbian learning in its first "
        "layer and a modulator fed back from the answers' entropy adapt it beyond new normalisation statistics."
    ),
    citation="""@inproceedings{tang2023nhl,
  title     = {Neuro-Modulated {Hebbian} Learning for Fully Test-Time Adaptation},
  author    = {Tang, Yushun and Zhang, Ce and Xu, Heng and Chen, Shuoshuo and Cheng, Jie and Leng, Luziwei and
               Guo, Qinghai and He, Zhihai},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2023}
}""",
    arms={
        "nhl": NHLSetting(rate=0.03),
        "hebb": HebbSetting(rate=0.03),
        "modulator": TentSetting(),
        "tent": TentSetting(),
        "statistics": StatisticsSetting(),
    },
    search={
        "nhl": {"rate": (0.03, 0.1, 0.3), "temperature": (0.3, 1.0), "lr": (1e-3, 1e-2)},
        "hebb": {"rate": (0.03, 0.1, 0.3), "temperature": (0.3, 1.0)},
        "modulator": {"lr": _RATES, "batch_size": (50, 100)},
        "tent": {"lr": _RATES, "batch_size": (50, 100)},
        "statistics": {"prior": (0.0, 30.0, 100.0), "momentum": (0.3, 1.0)},
    },
    tune_trials=6,
    seeds=16,
    first_seed=5,
    trial=trial,
    data=lambda config: data.load(config.dataset).checksum,
    claims=(
        exceeds(
            "nhl.noise", "statistics.noise", by=0.0075, primary=True,
            text="under Gaussian and impulse noise NHL is three quarters of a point ahead of batch statistics",
        ),
        exceeds(
            "nhl.acc", "statistics.acc", by=0.005,
            text="over noise, blur and contrast NHL is at least half a point better than batch statistics alone",
        ),
        at_least("nhl.gain", 0.05, text="NHL gains at least 5 points over the source model"),
        equivalent(
            "nhl.acc", "statistics.acc", within=0.015,
            text="what NHL adds to batch statistics is less than 1.5 points either way",
        ),
        exceeds("nhl.acc", "tent.acc", by=-0.005, text="NHL is within half a point of entropy minimisation (TENT)"),
        equivalent(
            "nhl.acc", "hebb.acc", within=0.005,
            text="without the modulator the Hebbian step alone is within half a point of NHL",
        ),
        equivalent(
            "modulator.acc", "statistics.acc", within=0.005,
            text="the modulator alone is within half a point of batch statistics",
        ),
        at_least("nhl.clean_change", -0.01, text="on clean images NHL loses at most 1 point"),
        exceeds(
            "nhl.bits", "statistics.bits", by=-0.1,
            text="no collapse: after three passes answers are spread as with batch statistics, within 0.1 bit",
        ),
    ),
    scales={
        "smoke": {
            "train_samples": 600, "epochs": 1, "channels": (4, 8), "validation_samples": 100, "test_samples": 100,
            "kinds": 1, "batch_size": 50,
        },
        "paper": {"dataset": "fashion-mnist-full", "train_samples": 58000, "epochs": 10, "test_samples": 10000},
    },
    figures=(
        figures.MetricStrip("noise", title="Accuracy under Gaussian and impulse noise"),
        figures.MetricStrip("acc", title="Accuracy on corrupted images, all kinds"),
        figures.MetricStrip("gain", title="Gain over the source model"),
        figures.MetricStrip("gaussian_noise"),
        figures.MetricStrip("contrast"),
        figures.LearningCurves("accuracy", title="Accuracy through the stream", x_title="batch"),
        ImageRows("filters", "Filters of the first layer", "Before and after the last corruption, first seed."),
        ImageRows("met", "What is met", "Five images as each corruption shows them."),
    ),
    notes=(
        "Fashion-MNIST with corruptions of severity 4 stands for CIFAR-10-C; the source model learns 8,000 images. "
        "Settings were chosen on three other corruptions (speckle noise, Gaussian blur, JPEG). Every arm begins with "
        "the same source model, whose own accuracy is the metric source_acc; a batch is adapted to, then answered, and "
        "the model is put back between corruptions. Nearly all of the gain over the source model comes from batch "
        "statistics, which every arm has. On development seeds the Hebbian step added 2 points where the source model "
        "had been trained hastily (two epochs at a constant rate), took 2 away on another such seed, and moved "
        "accuracy by half a point either way where it had been trained well, as here. The modulator (a gain and a "
        "shift per channel behind the first normalisation) and a plain softmax competition are a reconstruction. Rates "
        "go with pixels in [0, 1] and the mean over patches; with standardised pixels they cost accuracy under blur. "
        "Use BatchNormStatistics first: it costs one more forward pass; NHL costs about three."
    ),
)  # fmt: skip
