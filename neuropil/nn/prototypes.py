"""Classes known by the mean of their examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.errors import ConfigError, LabelError, ShapeError, nearest

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

METRICS = ("euclidean", "cosine")


class ClassSums(NamedTuple):
    """Sum of the features of each class, and how many there were."""

    sums: Float[Tensor, "classes features"]
    counts: Float[Tensor, " classes"]


def class_sums(
    features: Float[Tensor, "batch features"], labels: Int64[Tensor, " batch"], classes: int
) -> ClassSums:
    """Add up features class by class; gradients flow through.

    Raises:
        LabelError: a label lies outside 0 to classes - 1.
        ShapeError: features are not `[batch, features]`, or not as many as labels.

    >>> class_sums(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1, 1, 0]), 3)
    ClassSums(sums=tensor([[4.],
            [3.],
            [0.]]), counts=tensor([1., 2., 0.]))
    """
    if features.dim() != 2 or labels.shape != features.shape[:1]:
        raise ShapeError(
            f"features {list(features.shape)} and labels {list(labels.shape)}; expected [batch, features] and [batch]"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise LabelError(f"label {wrong} is out of range, expected 0 to {classes - 1}")
    sums = features.new_zeros(classes, features.shape[1]).index_add(0, labels, features)
    counts = features.new_zeros(classes).index_add(0, labels, torch.ones_like(features[:, 0]))
    return ClassSums(sums, counts)


def prototype_logits(
    features: Float[Tensor, "batch features"],
    prototypes: Float[Tensor, "classes features"],
    *,
    metric: Literal["euclidean", "cosine"] = "euclidean",
) -> Float[Tensor, "batch classes"]:
    """How near features are to each class: minus half the squared distance, or the cosine.

    >>> prototype_logits(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    tensor([[-0.0000, -2.5000]])
    """
    if metric not in METRICS:
        raise ConfigError(f"prototype_logits: no metric is called {metric!r}{nearest(str(metric), METRICS)}")
    if metric == "cosine":
        return functional.normalize(features, dim=1) @ functional.normalize(prototypes, dim=1).mT
    return -0.5 * (features[:, None] - prototypes).square().sum(-1)


class NearestPrototype(nn.Module):
    """Classifier that remembers of each class the mean of its examples' features; no gradient step is needed.

    Args:
        encoder: any model `inputs -> features [batch, features]`; shared, not copied.
        metric: "euclidean" (prototypical networks) or "cosine".

    The prototypes `[classes, features]` are a buffer. `fit` learns them from a few examples of each class.

    Snell, Swersky, Zemel: Prototypical Networks for Few-shot Learning. NeurIPS 2017. arXiv:1703.05175

    >>> few = NearestPrototype(nn.Flatten())
    >>> few.fit(torch.tensor([[0.0, 0.0], [2.0, 2.0]]), torch.tensor([0, 1]))(torch.tensor([[1.5, 1.9]])).argmax(1)
    tensor([1])
    """

    prototypes: Tensor

    def __init__(self, encoder: nn.Module, *, metric: Literal["euclidean", "cosine"] = "euclidean") -> None:
        super().__init__()
        self.encoder, self.metric = encoder, metric
        self.register_buffer("prototypes", torch.empty(0, 0))

    @torch.no_grad()
    def fit(self, inputs: Tensor, labels: Int64[Tensor, " batch"]) -> NearestPrototype:
        """Learn the prototypes of the classes 0 to the highest label, each of which needs an example.

        The encoder is used as it is: put it into evaluation mode where it has batch statistics.
        """
        sums, counts = class_sums(self.encoder(inputs), labels, int(labels.max()) + 1)
        if not counts.all():
            raise LabelError(f"NearestPrototype: class {int((counts == 0).nonzero()[0])} has no example")
        self.prototypes = sums / counts[:, None]
        return self

    def forward(self, x: Tensor) -> Float[Tensor, "batch classes"]:
        """Nearness to each class."""
        return prototype_logits(self.encoder(x), self.prototypes, metric=self.metric)
