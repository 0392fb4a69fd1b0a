"""Corrective unlearning: undo what manipulated training data did, of which only a part was found.

Goel, Prabhu, Torr, Kumaraguru, Sanyal: Corrective Machine Unlearning. TMLR 2024. arXiv:2402.14015; the patch: Gu,
Dolan-Gavitt, Garg: BadNets. 2017. arXiv:1708.06733
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from neuropil.data.arrays import Arrays
from neuropil.data.batching import gather
from neuropil.data.task import Samples
from neuropil.editing.judging import answers
from neuropil.errors import ConfigError, DataError, ShapeError
from neuropil.plotting import canvas

Method = Callable[[nn.Module, Samples, Samples], nn.Module]  # model, what to forget, all the rest -> model


class ManipulatedSamples(Arrays):
    """Training pairs some of which were manipulated, and which those are.

    `manipulated` `[samples]` is the truth, that a developer does not know; `true_targets` are the labels before.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, manipulated: Tensor, true_targets: Tensor) -> None:
        super().__init__(inputs, targets)
        self.manipulated, self.true_targets = manipulated, true_targets

    def identified(self, share: float, generator: torch.Generator) -> Tensor:
        """Positions of a random `share` in (0, 1] of the manipulated pairs, at least one: what was found.

        With one generator state a larger share contains the smaller one.
        """
        if not 0 < share <= 1:
            raise ConfigError(f"identified: share is {share}, expected above 0 and at most 1")
        rows = self.manipulated.nonzero()[:, 0]
        order = torch.randperm(len(rows), generator=generator)
        return rows[order[: max(1, round(share * len(rows)))]].sort().values


class Manipulation(Protocol):
    """A way to manipulate training data, and the inputs on which it shows."""

    def manipulate(self, samples: Dataset[Any], generator: torch.Generator) -> ManipulatedSamples:
        """Training pairs after the manipulation; the given ones stay as they are."""
        ...

    def affected(self, samples: Dataset[Any]) -> Arrays:
        """Test pairs on which the manipulation shows, with their true labels."""
        ...


@dataclass(frozen=True)
class BadNetPatch:
    """A bright square in the lower right corner, learned to mean one label: a backdoor.

    Args:
        share: of the pairs that get the patch and the label, in (0, 1).
        size: of the square's side in pixels, at least 1.
        label: what the patch is to mean.
        value: of the patch's pixels; `None` takes the brightest in the data.

    >>> data = torch.utils.data.TensorDataset(torch.zeros(20, 1, 6, 6), torch.arange(20) % 2)
    >>> poisoned = BadNetPatch(0.1, value=1.0).manipulate(data, torch.Generator().manual_seed(0))
    >>> int(poisoned.manipulated.sum()), float(poisoned.inputs.sum())
    (2, 18.0)
    """

    share: float = 0.01
    size: int = 3
    label: int = 0
    value: float | None = None

    def manipulate(self, samples: Dataset[Any], generator: torch.Generator) -> ManipulatedSamples:
        """Pairs drawn at random get the patch and the label. Raises ConfigError for a share that leaves none."""
        inputs, targets = _all(samples)
        count = round(self.share * len(targets))
        if not 0 < self.share < 1 or not count:
            raise ConfigError(
                f"BadNetPatch: share is {self.share} of {len(targets)} samples, expected in (0, 1) and at least one"
            )
        chosen = torch.zeros(len(targets), dtype=torch.bool)
        chosen[torch.randperm(len(targets), generator=generator)[:count]] = True
        patched = torch.where(_like(chosen, inputs), self.patched(inputs), inputs)
        return ManipulatedSamples(patched, torch.where(chosen, self.label, targets), chosen, targets)

    def affected(self, samples: Dataset[Any]) -> Arrays:
        """All pairs of other labels, with the patch: right is what it would be without."""
        inputs, targets = _all(samples)
        others = targets != self.label
        return Arrays(self.patched(inputs)[others], targets[others])

    def patched(self, inputs: Tensor) -> Tensor:
        """Images `[..., height, width]` with the patch. Raises ShapeError where it does not fit."""
        if inputs.dim() < 3 or min(inputs.shape[-2:]) < self.size or self.size < 1:
            raise ShapeError(
                f"BadNetPatch: inputs are {list(inputs.shape)}, expected images of at least {self.size} x {self.size}"
            )
        found = inputs.clone()
        found[..., -self.size :, -self.size :] = inputs.max() if self.value is None else self.value
        return found


@dataclass(frozen=True)
class InterclassConfusion:
    """The labels of two classes swapped on a share of their samples.

    Args:
        classes: the two labels.
        share: of each class's pairs that get the other label, in (0, 1). Well below a half a network sees through it.

    >>> data = torch.utils.data.TensorDataset(torch.zeros(30, 2), torch.arange(30) % 3)
    >>> confused = InterclassConfusion((0, 2), 0.4).manipulate(data, torch.Generator().manual_seed(0))
    >>> [int(((confused.true_targets == c) & confused.manipulated).sum()) for c in range(3)]
    [4, 0, 4]
    """

    classes: tuple[int, int]
    share: float = 0.45

    def manipulate(self, samples: Dataset[Any], generator: torch.Generator) -> ManipulatedSamples:
        """Pairs of both classes drawn at random swap labels. Raises ConfigError for a share that leaves none."""
        inputs, targets = _all(samples)
        chosen = torch.zeros(len(targets), dtype=torch.bool)
        swapped = targets.clone()
        for own, other in (self.classes, self.classes[::-1]):
            rows = (targets == own).nonzero()[:, 0]
            count = round(self.share * len(rows))
            if not 0 < self.share < 1 or not count or own == other:
                raise ConfigError(
                    f"InterclassConfusion: share is {self.share} of {len(rows)} samples of class {own}, expected in "
                    "(0, 1), at least one, and two classes"
                )
            drawn = rows[torch.randperm(len(rows), generator=generator)[:count]]
            chosen[drawn], swapped[drawn] = True, other
        return ManipulatedSamples(inputs, swapped, chosen, targets)

    def affected(self, samples: Dataset[Any]) -> Arrays:
        """Pairs of the two classes."""
        inputs, targets = _all(samples)
        mine = torch.isin(targets, torch.tensor(self.classes))
        return Arrays(inputs[mine], targets[mine])


def corrective_accuracy(model: nn.Module, manipulation: Manipulation, test: Dataset[Any]) -> float:
    """Accuracy against the true labels where the manipulation shows, in [0, 1].

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    >>> data = torch.utils.data.TensorDataset(torch.randn(20, 1, 4, 4), torch.arange(20) % 2)
    >>> 0 <= corrective_accuracy(net, BadNetPatch(size=2), data) <= 1
    True
    """
    return answers(model, manipulation.affected(test)).accuracy


@dataclass(frozen=True, eq=False)
class UnlearningBenchmark:
    """What methods correct and keep, by the share of the manipulated data that was found."""

    gammas: tuple[float, ...]  # shares found
    corrected: dict[str, list[float]]  # by method and share: accuracy where the manipulation shows
    retained: dict[str, list[float]]  # accuracy on clean test data
    corrected_before: float  # of the model that learned the manipulated data
    retained_before: float

    def plot(self) -> Any:
        """Both accuracies against the share found, as a matplotlib figure."""
        figure, (left, right) = canvas(2, width=4.6)
        for axes, found, before, title in (
            (left, self.corrected, self.corrected_before, "where it was manipulated"),
            (right, self.retained, self.retained_before, "elsewhere"),
        ):
            axes.axhline(before, color="#8a8a8a", linestyle="--", linewidth=1, label="before")
            for name, values in found.items():
                axes.plot(self.gammas, values, marker="o", label=name)
            axes.set(xlabel="share of the manipulated data that was found", ylabel="accuracy", ylim=(0, 1))
            axes.set_title(title)
        right.legend(frameon=False)
        return figure


def unlearning_benchmark(
    model: nn.Module,
    train: ManipulatedSamples,
    test: Dataset[Any],
    manipulation: Manipulation,
    methods: Mapping[str, Method],
    *,
    gammas: Sequence[float] = (0.1, 0.5, 1.0),
    generator: torch.Generator | None = None,
) -> UnlearningBenchmark:
    """Hold methods of unlearning against a manipulation of which only a share was found.

    What is handed to a method as "the rest" still holds the manipulated pairs that were not found: a method that trusts
    it learns them again.

    Args:
        model: trained on `train`; it stays as it is.
        train: manipulated training pairs.
        test: clean pairs to judge by.
        manipulation: what was done to `train`.
        methods: by name, `(model, forget, retain) -> model`, such as `scrub` or a `functools.partial` of another edit.
        gammas: shares of the manipulated pairs that were found, each in (0, 1].
        generator: draws which were found; larger shares contain the smaller ones.

    Raises:
        ConfigError: a share out of range, or no method.
        DataError: nothing in `train` is manipulated.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    >>> data = torch.utils.data.TensorDataset(torch.randn(40, 1, 4, 4), torch.arange(40) % 2)
    >>> patch = BadNetPatch(0.2, size=2)
    >>> train = patch.manipulate(data, torch.Generator().manual_seed(0))
    >>> found = unlearning_benchmark(net, train, data, patch, {"none": lambda model, forget, retain: model})
    >>> found.corrected["none"] == [found.corrected_before] * 3
    True
    """
    if not methods or not gammas:
        raise ConfigError("unlearning_benchmark: give at least one method and one share")
    if not bool(train.manipulated.any()):
        raise DataError("unlearning_benchmark: no sample is manipulated, expected at least one")
    seed = int(torch.randint(2**31, (), generator=generator or torch.Generator().manual_seed(0)))
    corrected: dict[str, list[float]] = {name: [] for name in methods}
    retained: dict[str, list[float]] = {name: [] for name in methods}
    for gamma in gammas:
        found = train.identified(gamma, torch.Generator().manual_seed(seed))
        rest = torch.ones(len(train), dtype=torch.bool)
        rest[found] = False
        for name, method in methods.items():
            edited = method(model, train.subset(found), train.subset(rest.nonzero()[:, 0]))
            corrected[name].append(corrective_accuracy(edited, manipulation, test))
            retained[name].append(answers(edited, test).accuracy)
    return UnlearningBenchmark(
        tuple(map(float, gammas)), corrected, retained,
        corrective_accuracy(model, manipulation, test), answers(model, test).accuracy,
    )  # fmt: skip


def _all(samples: Dataset[Any]) -> tuple[Tensor, Tensor]:
    return gather(samples, range(len(samples)))  # type: ignore[arg-type]


def _like(mask: Tensor, inputs: Tensor) -> Tensor:
    return mask.reshape(-1, *[1] * (inputs.dim() - 1))
