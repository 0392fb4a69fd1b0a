"""Prototypical Bayesian continual learning: a Gaussian posterior of each class's mean, on features that learn.

Kessler, Cobb, Rudner, Zohren, Roberts: On Sequential Bayesian Inference for Continual Learning. Entropy 25, 2023.
arXiv:2301.01828
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from neuropil.continual.replay import Replay
from neuropil.data.batching import batches
from neuropil.data.task import Batch, Task
from neuropil.errors import ConfigError, ShapeError
from neuropil.nn.prototypes import class_sums
from neuropil.training.evaluating import evaluating
from neuropil.training.learner import Backprop
from neuropil.training.plugin import Plugin

if TYPE_CHECKING:
    from jaxtyping import Float, Int64


class ClassPosterior(NamedTuple):
    """What is known of each class: its mean is normal with these moments, and so many examples were seen."""

    means: Float[Tensor, "classes features"]
    precisions: Float[Tensor, " classes"]  # of the mean, the same in all directions
    counts: Float[Tensor, " classes"]


def updated_posterior(
    posterior: ClassPosterior,
    features: Float[Tensor, "batch features"],
    labels: Int64[Tensor, " batch"],
    *,
    noise: float = 1.0,
) -> ClassPosterior:
    """Exact posterior after more examples, `features ~ N(mean of the class, noise)`; gradients flow through.

    Examples in any order and any portions give the same posterior. `noise` is a variance, more than 0.

    >>> before = ClassPosterior(torch.zeros(1, 1), torch.ones(1), torch.zeros(1))
    >>> updated_posterior(before, torch.tensor([[3.0], [3.0]]), torch.tensor([0, 0])).means
    tensor([[2.]])
    """
    sums, counts = class_sums(features, labels, len(posterior.counts))
    precisions = posterior.precisions + counts / noise
    weighted = posterior.precisions[:, None] * posterior.means + sums / noise
    return ClassPosterior(weighted / precisions[:, None], precisions, posterior.counts + counts)


def log_predictive(
    features: Float[Tensor, "batch features"], posterior: ClassPosterior, *, noise: float = 1.0
) -> Float[Tensor, "batch classes"]:
    """Log density of features under each class, its mean integrated out: `N(m, noise + 1 / precision)`."""
    square = (features[:, None] - posterior.means).square().sum(-1)
    return _log_normal(square, noise + 1 / posterior.precisions, features.shape[1])


def leave_one_out(
    features: Float[Tensor, "batch features"],
    labels: Int64[Tensor, " batch"],
    prior: ClassPosterior,
    *,
    noise: float = 1.0,
) -> Float[Tensor, "batch classes"]:
    """Log predictive density of each example given all others of the batch; gradients reach every prototype.

    An example does not help to place its own prototype: without that, features could grow to their own label.
    """
    after = updated_posterior(prior, features, labels, noise=noise)
    one_less = after.precisions[labels] - 1 / noise
    means = (after.precisions[labels, None] * after.means[labels] - features / noise) / one_less[:, None]
    own = _log_normal((features - means).square().sum(-1), noise + 1 / one_less, features.shape[1])
    others = log_predictive(features, after, noise=noise)
    return others.scatter(1, labels[:, None], own[:, None])


def _log_normal(square: Tensor, variance: Tensor, features: int) -> Tensor:
    return -0.5 * (square / variance + features * (2 * math.pi * variance).log())


class PrototypicalBayesClassifier(nn.Module):
    """Generative classifier on a model's features: each class is a Gaussian whose mean is known by its posterior.

    `features | class ~ N(mean, noise I)`, `mean ~ N(0, 1 / prior_precision I)`, and a Dirichlet prior of one count on
    every class. The posterior is exact and has no task boundaries; it is kept in buffers. `forward` gives the log of
    the posterior predictive probability of each class, so that cross-entropy is its negative log likelihood.

    Args:
        encoder: any model `inputs -> features [batch, features]`; shared, not copied.
        features: width of what the encoder gives.
        classes: number of classes, whether they have been met or not.
        noise: variance of features around their class's mean, more than 0.
        prior_precision: of the means before any example, more than 0.
        balanced: classes that have been met are equally likely, others impossible; otherwise as the Dirichlet
            posterior of the examples' counts has it, which follows what was remembered rather than what will come.

    >>> net = PrototypicalBayesClassifier(nn.Linear(2, 3), features=3, classes=4)
    >>> net.observe(torch.randn(10, 2), torch.arange(10) % 2)
    >>> net(torch.randn(5, 2)).exp().gt(0).any(0).tolist()
    [True, True, False, False]
    """

    means: Tensor
    precisions: Tensor
    counts: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        features: int,
        classes: int,
        *,
        noise: float = 1.0,
        prior_precision: float = 0.1,
        balanced: bool = True,
    ) -> None:
        super().__init__()
        for name, value in (("features", features), ("classes", classes)):
            if value < 1:
                raise ConfigError(f"PrototypicalBayesClassifier.{name}: got {value}, expected at least 1")
        for name, variance in (("noise", noise), ("prior_precision", prior_precision)):
            if not (variance > 0 and math.isfinite(variance)):
                raise ConfigError(
                    f"PrototypicalBayesClassifier.{name}: got {variance}, expected a number above 0"
                )
        self.encoder, self.noise, self.prior_precision, self.balanced = (
            encoder,
            noise,
            prior_precision,
            balanced,
        )
        like = next((p for p in encoder.parameters() if p.is_floating_point()), torch.empty(0)).detach()
        self.register_buffer("means", like.new_zeros(classes, features))
        self.register_buffer("precisions", like.new_full((classes,), prior_precision))
        self.register_buffer("counts", like.new_zeros(classes))

    @property
    def posterior(self) -> ClassPosterior:
        """What is known of each class."""
        return ClassPosterior(self.means, self.precisions, self.counts)

    @property
    def prior(self) -> ClassPosterior:
        """What is known before any example."""
        return ClassPosterior(
            torch.zeros_like(self.means),
            torch.full_like(self.precisions, self.prior_precision),
            torch.zeros_like(self.counts),
        )

    def forward(self, x: Tensor) -> Float[Tensor, "batch classes"]:
        """Log probability of each class."""
        return self.log_probabilities(log_predictive(self.features_of(x), self.posterior, noise=self.noise))

    def features_of(self, x: Tensor) -> Float[Tensor, "batch features"]:
        """What the encoder gives; ShapeError when it is not `[batch, features]`."""
        features: Tensor = self.encoder(x)
        if features.dim() != 2 or features.shape[1] != self.means.shape[1]:
            raise ShapeError(
                f"PrototypicalBayesClassifier: the encoder gives {list(features.shape)}, "
                f"expected [batch, {self.means.shape[1]}]"
            )
        return features

    def log_probabilities(
        self, log_density: Float[Tensor, "batch classes"], counts: Float[Tensor, " classes"] | None = None
    ) -> Float[Tensor, "batch classes"]:
        """Bayes' rule: densities under each class weighted by how likely it is, normalised."""
        counts = self.counts if counts is None else counts
        if not self.balanced:
            return functional.log_softmax(log_density + (counts + 1).log(), dim=-1)
        if counts.any():
            log_density = log_density.masked_fill(counts == 0, -torch.inf)
        return functional.log_softmax(log_density, dim=-1)

    @torch.no_grad()
    def observe(self, x: Tensor, labels: Int64[Tensor, " batch"]) -> None:
        """Take in examples: the posterior becomes the next prior."""
        self._hold(updated_posterior(self.posterior, self.features_of(x), labels, noise=self.noise))

    def forget(self) -> None:
        """Back to the prior, as is due when the encoder has changed."""
        self._hold(self.prior)

    @torch.no_grad()
    def renew(self, features: Float[Tensor, "batch features"], labels: Int64[Tensor, " batch"]) -> None:
        """Know the classes among these examples from these examples alone, and leave the others as they are."""
        fresh = updated_posterior(self.prior, features, labels, noise=self.noise)
        there = fresh.counts > 0
        self._hold(
            ClassPosterior(
                torch.where(there[:, None], fresh.means, self.means),
                torch.where(there, fresh.precisions, self.precisions),
                torch.where(there, fresh.counts, self.counts),
            )
        )

    @torch.no_grad()
    def _hold(self, posterior: ClassPosterior) -> None:
        self.means.copy_(posterior.means)
        self.precisions.copy_(posterior.precisions)
        self.counts.copy_(posterior.counts)


class _Keeper(Plugin):
    """Brings the prototypes up to date when a task ends and before the model is judged."""

    def __init__(self, learner: ProtoCL) -> None:
        self.learner = learner

    def after_task(self, task: Task) -> None:
        self.learner.end_task(task)

    def before_eval(self) -> None:
        self.learner.recall()


class ProtoCL(Backprop):
    """Learner of a `PrototypicalBayesClassifier`: the encoder learns that every example is predicted by the others.

    The loss is the negative log predictive probability of each example of a batch given the other examples of the
    batch, `leave_one_out`; classes that the batch lacks take part as they were last known. When the encoder has moved,
    what was known of earlier classes is stale: it is computed again from remembered samples.

    Args:
        model: what is trained.
        optimizer: any `torch.optim.Optimizer` over the model's parameters.
        replay: joins remembered samples to each batch, and supplies those that prototypes are computed again from.
            Without it earlier classes are known by their old prototypes alone.
        recompute: compute prototypes of earlier classes again; turned off to see what that is worth.
        plugins: what else acts on the batch, the loss and the gradients.

    In a loop of your own call `update(batch)`, and `end_task(task)` after each task.

    >>> net = PrototypicalBayesClassifier(nn.Linear(2, 8), features=8, classes=2)
    >>> learner = ProtoCL(net, torch.optim.Adam(net.parameters()), replay=Replay(per_class=10))
    >>> sorted(learner.update(Batch(torch.randn(8, 2), torch.arange(8) % 2)))
    ['loss']
    """

    model: PrototypicalBayesClassifier

    def __init__(
        self,
        model: PrototypicalBayesClassifier,
        optimizer: Optimizer,
        *,
        replay: Replay | None = None,
        recompute: bool = True,
        plugins: Sequence[Plugin] = (),
    ) -> None:
        if not isinstance(model, PrototypicalBayesClassifier):
            raise ConfigError(
                f"ProtoCL.model: got {type(model).__name__}, expected PrototypicalBayesClassifier"
            )
        inner = () if replay is None else (replay,)
        super().__init__(model, optimizer, plugins=(*inner, *plugins, _Keeper(self)))
        self.replay, self.recompute = replay, recompute
        self._seen: tuple[Tensor, Tensor] | None = None

    def update(self, batch: Batch) -> dict[str, float]:
        """One step on one batch."""
        measured = super().update(batch)
        if self._seen is not None and self.recompute:
            self.model.renew(*self._seen)
        return measured

    def answer(self, batch: Batch) -> Tensor:
        """Log probabilities of each example's classes given the other examples."""
        model, labels = self.model, batch.targets
        features = model.features_of(batch.inputs)
        there = class_sums(features.detach(), labels, len(model.counts)).counts > 0
        known = model.posterior
        prior = ClassPosterior(  # only classes that the batch lacks keep what is known of them
            torch.where(there[:, None], 0.0, known.means),
            torch.where(there, model.prior_precision, known.precisions),
            torch.where(there, 0.0, known.counts),
        )
        self._seen = features.detach(), labels
        density = leave_one_out(features, labels, prior, noise=model.noise)
        return model.log_probabilities(density, torch.where(there, 1.0, known.counts))

    @torch.no_grad()
    def end_task(self, task: Task) -> None:
        """Know the finished task's classes: from what was remembered of it, or else from all its samples."""
        if self.replay is not None and self.recompute:
            self.recall()
            return
        with evaluating(self.model):
            parts = [(self._features(b.inputs), b.targets) for b in batches(task.train, 1000, shuffle=False)]
            self.model.renew(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))

    @torch.no_grad()
    def recall(self) -> None:
        """Compute the prototypes of all remembered classes with the encoder as it is now."""
        if self.replay is None or not self.recompute or not len(self.replay.buffer):
            return
        every = self.replay.buffer.select(torch.arange(len(self.replay.buffer)))
        with evaluating(self.model):
            features = torch.cat([self._features(part) for part in every.inputs.split(1000)])
            self.model.renew(features, every.targets.to(features.device))

    def _features(self, x: Tensor) -> Tensor:
        return self.model.features_of(x.to(self.model.means.device))
