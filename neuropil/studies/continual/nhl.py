"""NHL: a finished network adapts to corrupted images by Hebbian learning, without labels and without its data."""

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
from neuropil.bench.overhead import overhead
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.continual import NHL, TENT, BatchNormStatistics, SourceFreeAdapter
from neuropil.training import Trainer

TUNED_ON = ("speckle_noise", "gaussian_blur", "jpeg")  # held out from the kinds that claims are judged on
JUDGED_ON = ("gaussian_noise", "impulse_noise", "defocus_blur", "motion_blur", "contrast", "pixelate")


@dataclass(frozen=True)
class AdaptSetting(Config):
    """A network trained on clean images, and the corrupted ones it meets."""

    dataset: str = setting("fashion-mnist", "images: a name that `neuropil data list` shows")
    train_samples: int = setting(8000, "clean images that the network is trained on", low=1)
    epochs: int = setting(2, "passes over them", low=1)
    channels: tuple[int, ...] = setting((16, 32), "channels of the two convolutions", low=1)
    severity: int = setting(4, "severity of every corruption, 1 to 5", low=1, high=5)
    test_samples: int = setting(2000, "corrupted images of each kind, met once", low=1)
    kinds: int = setting(6, "kinds of corruption", low=1, high=6)
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
        _pixels(config), 10, seed=seed, train_samples=config.train_samples, validation_samples=2000,
        test_samples=1, flat=False,
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    Trainer(model, optimizer, epochs=config.epochs, seed=seed, progress=False).fit(stream)
    return {name: value.clone() for name, value in model.state_dict().items()}


@cache
def images_met(config: AdaptSetting, seed: int, split: str, kind: str) -> tuple[Tensor, Tensor]:
    """Corrupted images `[n, 1, 28, 28]`, normalised, and their labels, for judging only."""
    sizes = {"train_samples": 1, "validation_samples": 2000, "test_samples": None if split == "test" else 1}
    task = data.corrupted(_pixels(config), (kind,), config.severity, seed=seed, flat=False, **sizes)[0]
    part = getattr(task, split)
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[: config.test_samples]
    return data.gather(part, order)


def trial(trial: Trial) -> Outcome:
    """One arm: adapt to each kind of corruption in turn, beginning at the source model each time."""
    config: Any = trial.config
    common = AdaptSetting(**{name: getattr(config, name) for name in AdaptSetting.__dataclass_fields__})
    model = network(config.channels)
    model.load_state_dict(source_weights(common, trial.seed))
    adapter = _ADAPTERS[trial.arm](config, model)
    kinds = (TUNED_ON if trial.evaluate_on == "validation" else JUDGED_ON)[: config.kinds]
    metrics: dict[str, float | None] = {}
    through: dict[str, list[float]] = {}
    for kind in ("clean", *kinds):
        x, y = images_met(common, trial.seed, trial.evaluate_on, kind)
        answers = meet(adapter, model, x, config.batch_size)
        right = (answers == y).float()
        metrics[kind] = float(right.mean())
        through[kind] = [float(part.mean()) for part in right.split(config.batch_size)]
        if adapter is not None:
            adapter.reset()
    metrics["acc"] = sum(metrics[kind] or 0.0 for kind in kinds) / len(kinds)
    x, y = images_met(common, trial.seed, trial.evaluate_on, kinds[0])
    for _ in range(3):
        answers = meet(adapter, model, x, config.batch_size)
    metrics["after_three_passes"] = float((answers == y).float().mean())
    metrics["bits"] = histogram_bits(answers)
    arrays = {"filters": _filters(model), "by_kind": {kind: metrics[kind] for kind in ("clean", *kinds)}}
    curve = [sum(values) / len(kinds) for values in zip(*(through[kind] for kind in kinds), strict=True)]
    return Outcome(metrics, _cost(adapter, model, x[: config.batch_size]), {"accuracy": curve}, arrays)


def meet(adapter: SourceFreeAdapter | None, model: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    """Answers to a stream of images: adapt to a batch, then answer it, then meet the next."""
    answers = []
    model.eval()
    for batch in x.split(batch_size):
        if adapter is not None:
            adapter.update(batch)
        with torch.no_grad():
            answers.append(model(batch).argmax(-1))
    return torch.cat(answers)


def histogram_bits(answers: Tensor) -> float:
    """Entropy in bits of how often each of ten classes is answered; log2(10) when evenly, 0 after a collapse."""
    share = torch.bincount(answers, minlength=10).double() / len(answers)
    return float(torch.special.entr(share).sum() / math.log(2))


def _cost(adapter: SourceFreeAdapter | None, model: nn.Module, batch: Tensor) -> dict[str, float]:
    """Time of adapting to a batch and answering it, over the time of answering it with the statistics of training."""
    if adapter is None:
        return {}

    @torch.no_grad()
    def plain() -> None:
        model(batch)

    def adapting() -> None:
        adapter.update(batch)
        adapter.predict(batch)

    return {"overhead": overhead(plain, adapting, rounds=15)}


def _filters(model: nn.Module) -> list[list[float]]:
    weight = next(model.parameters()).detach()
    return [row.tolist() for row in weight.flatten(1)]


def _adam(lr: float) -> Any:
    return partial(torch.optim.Adam, lr=lr)


_ADAPTERS: dict[str, Any] = {
    "source": lambda config, model: None,
    "statistics": lambda config, model: BatchNormStatistics(model, prior=config.prior, momentum=config.momentum),
    "tent": lambda config, model: TENT(model, optimizer=_adam(config.lr)),
    "modulator": lambda config, model: NHL(model, rate=0.0, optimizer=_adam(config.lr)),
    "hebb": lambda config, model: NHL(
        model, rate=config.rate, temperature=config.temperature, optimizer=None
    ),
    "nhl": lambda config, model: NHL(
        model, rate=config.rate, temperature=config.temperature, optimizer=_adam(config.lr)
    ),
}
