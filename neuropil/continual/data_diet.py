"""Data diet: find early in training which samples matter, and learn from those alone.

Paul, Ganguli, Dziugaite: Deep Learning on a Data Diet: Finding Important Examples Early in Training. NeurIPS 2021.
arXiv:2107.07075
Forgetting events: Toneva et al.: An Empirical Study of Example Forgetting during Deep Neural Network Learning.
ICLR 2019. arXiv:1812.05159
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, SequentialSampler, Subset

from neuropil.data.arrays import Arrays
from neuropil.data.batching import batches
from neuropil.data.task import Samples, Task
from neuropil.errors import ConfigError, NonFiniteError, ShapeError
from neuropil.plotting import canvas
from neuropil.training.allowed import restrict
from neuropil.training.evaluating import evaluating
from neuropil.training.learner import Loss, check_labels
from neuropil.training.per_sample import gradient_norms
from neuropil.training.plugin import Plugin, unwrapped

_Score = Callable[[nn.Module, Tensor, Tensor], Tensor]  # model, inputs, targets -> [batch]


@dataclass(frozen=True, eq=False)
class ExampleScores:
    """How much each sample matters by one measure; sample `i` is the data set's item `i`."""

    measure: str
    values: Tensor  # [samples], mean over models; higher is harder
    per_model: Tensor  # [models, samples]
    targets: Tensor  # [samples]

    @property
    def reliability(self) -> float | None:
        """How well the mean would agree with that of as many other models, in [-1, 1]; None for a single model.

        The rank correlation of the means over two halves of the models, stepped up to the full number (Spearman and
        Brown).
        """
        half = len(self.per_model) // 2
        if half == 0:
            return None
        r = rank_correlation(self.per_model[:half].mean(0), self.per_model[half : 2 * half].mean(0))
        return 2 * r / (1 + r) if r > 0 else r

    def plot(self) -> Any:
        """Distribution of the scores, and the classes of the hardest and the easiest half, as a matplotlib figure."""
        figure, (left, right) = canvas(2)
        left.hist(self.values.numpy(), bins=40, color="#4a8f98")
        left.set(xlabel=self.measure, ylabel="samples", title="scores")
        order = self.values.argsort(descending=True)
        half = len(order) // 2
        classes = torch.arange(int(self.targets.max()) + 1)
        for shift, (part, colour) in enumerate(((order[:half], "#173f56"), (order[half:], "#a9c8bd"))):
            counts = torch.bincount(self.targets[part], minlength=len(classes))
            right.bar((classes + 0.4 * shift - 0.2).numpy(), counts.numpy(), 0.4, color=colour)
        right.legend(["hardest half", "easiest half"], frameon=False)
        right.set(xlabel="class", ylabel="samples", title="classes")
        return figure


def el2n_scores(
    models: Sequence[nn.Module] | nn.ModuleList,
    samples: Samples,
    *,
    classes: tuple[int, ...] | None = None,
    batch_size: int = 500,
) -> ExampleScores:
    """EL2N: length of each sample's error, `|| softmax(model(x)) - onehot(y) ||`, averaged over models.

    Train several fresh models for a few passes, then score. High scores mark samples that are hard, rare or
    mislabelled; low ones are redundant. Each score lies in [0, sqrt(2)].

    Args:
        models: nets of the same kind from different initialisations, each `inputs -> logits [batch, classes]`.
            They are scored in evaluation mode and left as they are.
        samples: any data set of pairs with class indices, in its own order.
        classes: answers allowed, where the task is known.
        batch_size: samples answered at once.

    Raises:
        ConfigError: no model, or a DataLoader that shuffles.
        LabelError: a target is no output of the model.
        NonFiniteError: inputs or answers are NaN or infinite.

    >>> nets = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2)]
    >>> data = torch.utils.data.TensorDataset(torch.randn(30, 4), torch.arange(30) % 3)
    >>> el2n_scores(nets, data).values.shape
    torch.Size([30])
    """

    @torch.no_grad()
    def score(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        logits = model(x)
        check_labels(y, logits.shape[-1])
        error = functional.softmax(restrict(logits, classes), dim=-1)
        length: Tensor = (error - functional.one_hot(y, error.shape[-1])).norm(dim=-1)
        return length

    return _scores("EL2N", models, samples, score, batch_size)


def grand_scores(
    models: Sequence[nn.Module] | nn.ModuleList,
    samples: Samples,
    *,
    loss: Loss = functional.cross_entropy,
    batch_size: int = 64,
) -> ExampleScores:
    """GraNd: norm of each sample's own loss gradient over all parameters, averaged over models.

    It costs a backward pass for every sample; `el2n_scores` is its cheap approximation. Arguments and errors as
    there; `loss` is `(logits [1, classes], target [1]) -> scalar`, and `batch_size` gradients are held at once.

    >>> nets = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2)]
    >>> data = torch.utils.data.TensorDataset(torch.randn(30, 4), torch.arange(30) % 3)
    >>> grand_scores(nets, data).per_model.shape
    torch.Size([2, 30])
    """

    def score(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            check_labels(y, model(x[:1]).shape[-1])
        return gradient_norms(model, loss, x, y, batch_size=len(x))

    return _scores("GraNd", models, samples, score, batch_size)


def prune_dataset(
    samples: Dataset[Any],
    scores: Tensor | ExampleScores,
    keep: float,
    *,
    offset: float = 0.0,
    generator: torch.Generator | None = None,
) -> Dataset[Any]:
    """The samples with the highest scores, in their old order; a view, nothing is copied.

    Give `-scores` to keep the easiest. Train on the smaller set for as many steps, not as many passes, as before.
    Classes may lose their balance: look at what is left before pruning hard.

    Args:
        samples: map-style data set.
        scores: `[samples]`.
        keep: share of the samples to keep, in (0, 1].
        offset: share of the samples to leave out at the top, in [0, 1 - keep]: where labels are noisy, the highest
            scores are the wrong labels.
        generator: breaks ties at random; without one, of equal scores the earlier sample is kept.

    Raises:
        ConfigError: `keep` or `offset` is out of range, or nothing would be left.
        ShapeError: not one score for each sample.
        NonFiniteError: a score is NaN.

    >>> data = torch.utils.data.TensorDataset(torch.arange(4.0)[:, None], torch.zeros(4).long())
    >>> [int(x) for x, y in prune_dataset(data, torch.tensor([0.1, 0.9, 0.3, 0.8]), keep=0.5)]
    [1, 3]
    """
    values = scores.values if isinstance(scores, ExampleScores) else scores
    count = len(cast(Sized, samples))
    if values.shape != (count,):
        raise ShapeError(
            f"prune_dataset: scores are {list(values.shape)}, expected one for each of {count} samples"
        )
    if bool(values.isnan().any()):
        raise NonFiniteError(f"prune_dataset: {int(values.isnan().sum())} scores are NaN, expected numbers")
    if not (0 < keep <= 1 and 0 <= offset <= 1 - keep + 1e-9):
        raise ConfigError(
            f"prune_dataset: keep={keep}, offset={offset}; expected 0 < keep and keep + offset <= 1"
        )
    first, kept = round(offset * count), round(keep * count)
    if kept == 0:
        raise ConfigError(
            f"prune_dataset: keep={keep} of {count} samples leaves none; keep at least {1 / count:.2g}"
        )
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    ranked = order[values.cpu()[order].argsort(descending=True, stable=True)]
    rows = ranked[first : first + kept].sort().values
    return samples.subset(rows) if isinstance(samples, Arrays) else Subset(samples, rows.tolist())


class ForgettingTracker(Plugin):
    """Counts how often each sample is forgotten: answered rightly at one look, wrongly at the next.

    It looks at all samples when a pass over the training data begins and when a task ends, which costs one forward pass
    each. In a loop of your own call `look()` as often, or hand in what you know anyway with `note(index, correct)`.

    Args:
        model: the model that is trained, `inputs -> logits`.
        samples: what is watched, as a rule the training samples.
        classes: answers allowed, where the task is known.
        batch_size: samples answered at once.

    >>> net = nn.Linear(2, 2)
    >>> tracker = ForgettingTracker(net, torch.utils.data.TensorDataset(torch.randn(3, 2), torch.zeros(3).long()))
    >>> for right in ([1, 0, 0], [0, 1, 0], [1, 1, 0]):
    ...     tracker.note(torch.arange(3), torch.tensor(right).bool())
    >>> tracker.forgotten, tracker.learned
    (tensor([1, 0, 0]), tensor([ True,  True, False]))
    """

    def __init__(
        self,
        model: nn.Module,
        samples: Samples,
        *,
        classes: tuple[int, ...] | None = None,
        batch_size: int = 500,
    ) -> None:
        self.model, self.samples, self.classes = model, _ordered(samples), classes
        self.batch_size = batch_size
        self.looks = 0
        self.forgotten = torch.zeros(0, dtype=torch.long)  # [samples], times forgotten
        self.learned = torch.zeros(0, dtype=torch.bool)  # [samples], right at some look
        self._right = torch.zeros(0, dtype=torch.bool)  # [samples], at the last look

    def before_epoch(self, epoch: int) -> None:
        """Look before each pass over the samples."""
        self.look()

    def after_task(self, task: Task) -> None:
        """Look at the end."""
        self.look()

    @torch.no_grad()
    def look(self) -> None:
        """Answer every watched sample once."""
        right = []
        with evaluating(unwrapped(self.model)):
            for batch in batches(self.samples, self.batch_size, shuffle=False):
                logits = self.model(_placed(batch.inputs, self.model))
                logits = logits.mean(0) if logits.dim() > 2 else logits  # of a model that answers at every step
                right.append(restrict(logits, self.classes).argmax(-1).cpu() == batch.targets)
        self.note(torch.arange(sum(map(len, right))), torch.cat(right))
        self.looks += 1

    def note(self, index: Tensor, correct: Tensor) -> None:
        """Samples `index` `[n]` were just answered rightly or not, `correct` `[n]` bool."""
        if index.shape != correct.shape or index.dim() != 1:
            raise ShapeError(
                f"ForgettingTracker.note: index {list(index.shape)} and correct {list(correct.shape)}, "
                "expected both [samples]"
            )
        if len(index) and int(index.max()) >= len(self._right):
            self._resize(int(index.max()) + 1)
        self.forgotten[index] += (self._right[index] & ~correct).long()
        self.learned[index] |= correct
        self._right[index] = correct

    def scores(self) -> Tensor:
        """Times forgotten `[samples]`; a sample that was never right counts as forgotten more often than any other."""
        most = int(self.forgotten.max()) if len(self.forgotten) else 0
        return torch.where(self.learned, self.forgotten, max(self.looks, most + 1)).float()

    def state_dict(self) -> dict[str, Any]:
        """Counts so far."""
        return {
            "looks": self.looks,
            "forgotten": self.forgotten,
            "learned": self.learned,
            "right": self._right,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.looks = state["looks"]
        self.forgotten, self.learned = state["forgotten"].clone(), state["learned"].clone()
        self._right = state["right"].clone()

    def _resize(self, count: int) -> None:
        for name in ("forgotten", "learned", "_right"):
            old = getattr(self, name)
            new = torch.zeros(count, dtype=old.dtype)
            new[: min(count, len(old))] = old[:count]
            setattr(self, name, new)


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's correlation of two vectors `[n]`, ties given their mean rank; NaN where one of them is constant.

    >>> round(rank_correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 10.0, 100.0])), 6)
    1.0
    """
    return float(torch.corrcoef(torch.stack([_ranks(a), _ranks(b)]))[0, 1])


def _ranks(values: Tensor) -> Tensor:
    _, group, counts = values.unique(return_inverse=True, return_counts=True)
    end = counts.cumsum(0).double()
    ranks: Tensor = (end - (counts - 1) / 2)[group]
    return ranks


def _scores(
    measure: str,
    models: Sequence[nn.Module] | nn.ModuleList,
    samples: Samples,
    score: _Score,
    batch_size: int,
) -> ExampleScores:
    if isinstance(models, nn.Module) and not isinstance(models, nn.ModuleList):
        raise ConfigError(f"{measure}: got one {type(models).__name__}, expected a list of models")
    if not models:
        raise ConfigError(f"{measure}: no model was given; expected at least one, better five to ten")
    columns, targets = [], []
    for batch in batches(_ordered(samples), batch_size, shuffle=False):
        rows = []
        for model in models:
            inputs = _placed(batch.inputs, model)
            with evaluating(model):
                found = score(model, inputs, batch.targets.to(inputs.device)).detach().cpu()
            if not bool(found.isfinite().all()):
                raise NonFiniteError(f"{measure}: a model's answer or gradient is NaN or infinite")
            rows.append(found)
        columns.append(torch.stack(rows))
        targets.append(batch.targets)
    per_model = torch.cat(columns, dim=1)
    return ExampleScores(measure, per_model.mean(0), per_model, torch.cat(targets))


def _ordered(samples: Samples) -> Samples:
    if isinstance(samples, DataLoader) and not isinstance(samples.sampler, SequentialSampler):
        raise ConfigError(
            "a score belongs to a position: give the data set itself, or a DataLoader with shuffle=False"
        )
    return samples


def _placed(x: Tensor, model: nn.Module) -> Tensor:
    """Inputs where the model is, in its precision."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    if weight is None:
        return x
    return x.to(weight.device, weight.dtype if x.is_floating_point() else x.dtype)
