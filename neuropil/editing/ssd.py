"""SSD: selective synaptic dampening, forgetting by weakening the synapses that the forgotten data needed most.

Foster, Schoepf, Brintrup: Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening. AAAI 2024.
arXiv:2308.07707; without labels: Foster, Fogarty, Schoepf, Dugue, Oztireli, Brintrup: An Information Theoretic Approach
to Machine Unlearning. 2024. arXiv:2402.01401
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.data.batching import batches
from neuropil.data.task import Batch, Samples
from neuropil.editing.descent import Model, placed, share_unchanged
from neuropil.errors import ConfigError, NonFiniteError, ShapeError, nearest
from neuropil.nn.sharing import shared_copy
from neuropil.plotting import canvas
from neuropil.training.allowed import restrict
from neuropil.training.evaluating import evaluating
from neuropil.training.learner import Loss, check_labels
from neuropil.training.per_sample import per_sample_gradients

Importance = Mapping[str, Tensor]  # by parameter name, shaped as the parameter, not negative
Measure = Literal["loss", "output"]


def parameter_importance(
    model: nn.Module,
    samples: Samples,
    *,
    measure: Measure = "loss",
    batch_size: int = 64,
    per_sample: bool = False,
    loss: Loss = functional.cross_entropy,
) -> dict[str, Tensor]:
    """How much the answers to `samples` hang on each parameter, by parameter name.

    By default the mean over batches of the squared gradient of a batch's mean loss, as the paper takes it: it is not
    the Fisher information, for a batch's gradients partly cancel, and depends on the batch size. Compare only
    importances of one batch size. Compute it once when training ends, and the training data is not needed any more.

    Args:
        model: `inputs -> logits`, looked at in evaluation mode; it stays as it is.
        samples: pairs to average over, in their own order.
        measure: `loss`, or `output`: the size of the gradient of the mean squared length of the answers, which needs no
            labels.
        batch_size: samples whose gradients are averaged before they are squared.
        per_sample: square each sample's own gradient instead (the diagonal of the empirical Fisher information);
            slower, and only for `loss`.
        loss: `(logits, targets) -> scalar`.

    Raises:
        ConfigError: an unknown measure, or `per_sample` without labels.
        NonFiniteError: inputs or a gradient are NaN or infinite.
        LabelError: a target is no output of the model.

    >>> net = nn.Linear(3, 2)
    >>> data = torch.utils.data.TensorDataset(torch.randn(8, 3), torch.arange(8) % 2)
    >>> parameter_importance(net, data)["weight"].shape
    torch.Size([2, 3])
    """
    if measure not in get_args(Measure):
        raise ConfigError(f"measure is {str(measure)[:40]!r}{nearest(str(measure)[:40], get_args(Measure))}")
    if per_sample and measure == "output":
        raise ConfigError("per_sample squares gradients of a loss; with measure='output' leave it out")
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(p, requires_grad=False) for name, p in own.items()}
    count = 0
    for batch in (placed(batch, model) for batch in batches(samples, batch_size, shuffle=False)):
        if per_sample:
            for chunk in per_sample_gradients(
                model, loss, batch.inputs, batch.targets, batch_size=batch_size
            ):
                for name, gradients in chunk.items():
                    total[name] += gradients.square().sum(0)
            count += len(batch.targets)
        else:
            for name, gradient in _gradients(model, own, batch, measure, loss).items():
                total[name] += gradient.square() if measure == "loss" else gradient.abs()
            count += 1
    for name, value in total.items():
        if not bool(value.div_(count).isfinite().all()):
            raise NonFiniteError(f"parameter_importance: gradients of {name!r} are NaN or infinite")
    return total


@dataclass(frozen=True, eq=False)
class Dampening:
    """What each parameter is multiplied with to forget: 1 where it is left alone."""

    factors: dict[str, Tensor]  # by parameter name, in [0, 1]
    alpha: float
    lam: float
    fraction: float = field(init=False)  # of all parameters that are dampened
    by_parameter: dict[str, float] = field(init=False)  # that fraction within each tensor

    def __post_init__(self) -> None:
        dampened = {name: int((factor < 1).sum()) for name, factor in self.factors.items()}
        sizes = {name: max(1, factor.numel()) for name, factor in self.factors.items()}
        object.__setattr__(self, "fraction", sum(dampened.values()) / max(1, sum(sizes.values())))
        object.__setattr__(self, "by_parameter", {name: n / sizes[name] for name, n in dampened.items()})

    def apply(self, model: Model) -> Model:
        """The model with its parameters multiplied; tensors of which nothing changes are shared with it.

        Raises ShapeError for a parameter that the model does not have, or has in another shape.
        """
        twin = shared_copy(model)
        present = dict(twin.named_parameters())
        for name, factor in self.factors.items():
            old = present.get(name)
            if old is None or old.shape != factor.shape:
                raise ShapeError(
                    f"dampening: factors {list(factor.shape)} for parameter {name!r}, "
                    f"the model has {'none' if old is None else list(old.shape)}"
                )
            new = nn.Parameter(old.detach() * factor.to(old), requires_grad=old.requires_grad)
            for module in twin.modules():  # a tied parameter stands in several places
                for key, value in module._parameters.items():
                    if value is old:
                        module._parameters[key] = new
        return share_unchanged(model, twin)

    def plot(self) -> Any:
        """Share of each tensor that is dampened, and how strongly, as a matplotlib figure."""
        figure, (left, right) = canvas(2, width=4.6)
        names = list(self.by_parameter)
        left.barh(range(len(names)), [100 * self.by_parameter[name] for name in names], color="#4a8f98")
        left.set(yticks=range(len(names)), yticklabels=names, xlabel="dampened, %", title="where")
        left.invert_yaxis()
        touched = torch.cat([f[f < 1].flatten() for f in self.factors.values()] or [torch.zeros(0)])
        right.hist(touched.cpu().numpy(), bins=40, range=(0, 1), color="#173f56")
        right.set(xlabel="factor", ylabel="parameters", title=f"{self.fraction:.1%} of all parameters")
        return figure


def dampening(
    importance: Importance, forget_importance: Importance, *, alpha: float = 10.0, lam: float = 1.0
) -> Dampening:
    """Which parameters to dampen, and how much, from two importances.

    A parameter is selected when it matters more than `alpha` times as much to the forgotten data as to all of the
    training data, `I_f > alpha I`, and is then multiplied with `min(1, lam I / I_f)`.

    Args:
        importance: of all training data, what is to be forgotten included.
        forget_importance: of what is to be forgotten, taken with the same batch size.
        alpha: at least 0; smaller selects more. The paper's default is 10; 3 to 100 are worth a search.
        lam: at least 0; smaller dampens more, and 0 prunes what is selected.

    Raises:
        ConfigError: a negative `alpha` or `lam`.
        ShapeError: the importances are not of the same parameters.
        NonFiniteError: an importance is NaN, infinite or negative.

    >>> found = dampening({"w": torch.tensor([1.0, 1.0, 0.0])}, {"w": torch.tensor([5.0, 20.0, 0.0])})
    >>> found.factors["w"], round(found.fraction, 2)
    (tensor([1.0000, 0.0500, 1.0000]), 0.33)
    """
    for name, value in (("alpha", alpha), ("lam", lam)):
        if not 0 <= value < math.inf:
            raise ConfigError(f"dampening: {name} is {value}, expected a finite number of at least 0")
    if importance.keys() != forget_importance.keys() or any(
        importance[name].shape != forget_importance[name].shape for name in importance
    ):
        other = sorted(importance.keys() ^ forget_importance.keys())[:1]
        raise ShapeError(
            f"dampening: the importances belong to different parameters{f', such as {other[0]!r}' if other else ''}"
        )
    factors = {}
    for name, whole in importance.items():
        forget = forget_importance[name].to(whole)
        if not all(bool(t.isfinite().all()) and bool((t >= 0).all()) for t in (whole, forget)):
            raise NonFiniteError(f"dampening: the importance of {name!r} is NaN, infinite or negative")
        selected = forget > alpha * whole  # strictly: a dead parameter, 0 and 0, is left alone
        beta = (lam * whole / forget.clamp_min(torch.finfo(whole.dtype).tiny)).clamp_max(1.0)
        factors[name] = torch.where(selected, beta, torch.ones_like(whole))
    return Dampening(factors, float(alpha), float(lam))


def choose_dampening(
    model: Model, candidates: Iterable[Dampening], score: Callable[[Model], float]
) -> Dampening:
    """The candidate after which the model scores highest; of equal ones the first.

    What the best `alpha` is varies from network to network by a factor of ten, and a wrong one forgets nothing or ruins
    the rest. Once the two importances are known a try costs no gradient: search before every edit, on data that may be
    looked at, for instance the training data itself.

    Args:
        model: what is to be edited; it stays as it is.
        candidates: as made by `dampening`, at least one.
        score: `edited model -> number`, higher is better, such as accuracy kept minus accuracy on what is to go.

    Raises:
        ConfigError: no candidate. NonFiniteError: a score is NaN.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> tries = [Dampening({"weight": torch.tensor([[factor]])}, 1.0, 1.0) for factor in (1.0, 0.5, 0.0)]
    >>> choose_dampening(net, tries, lambda edited: -float(edited.weight.detach().abs())).factors["weight"]
    tensor([[0.]])
    """
    best: tuple[float, Dampening] | None = None
    for candidate in candidates:
        value = float(score(candidate.apply(model)))
        if math.isnan(value):
            raise NonFiniteError(f"choose_dampening: the score at alpha={candidate.alpha:g} is NaN")
        if best is None or value > best[0]:
            best = value, candidate
    if best is None:
        raise ConfigError("choose_dampening: there are no candidates; give at least one")
    return best[1]


def selective_synaptic_dampening(
    model: Model,
    forget: Samples,
    train: Samples | Importance,
    *,
    alpha: float = 10.0,
    lam: float = 1.0,
    measure: Measure = "loss",
    batch_size: int = 64,
    loss: Loss = functional.cross_entropy,
) -> Model:
    """The model after the parameters that matter most to `forget` were weakened: no training step is made.

    Costs a forward and backward pass over `forget`, and one over the training data unless its importances were stored.
    Parametrized weights are dampened in what they are made of, and stay what their parametrization makes of it. The
    best `alpha` differs between networks: search it with `choose_dampening`, whose tries need no gradients.

    Args:
        model: `inputs -> logits`; it stays as it is.
        forget: what is to go.
        train: all training data, `forget` included, or its `parameter_importance` with the same measure, batch size and
            loss.
        alpha: how many times as much a parameter must matter to `forget` to be dampened, at least 0.
        lam: strength, at least 0; smaller is stronger.
        measure: `loss`, or `output`, which needs no labels.
        batch_size: samples whose gradients are averaged before they are squared.
        loss: `(logits, targets) -> scalar`.

    Raises:
        ConfigError: `alpha` or `lam` is negative, or the measure is unknown.
        ShapeError: stored importances are another model's.
        NonFiniteError: inputs or a gradient are NaN or infinite.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> data = torch.utils.data.TensorDataset(torch.randn(30, 4), torch.arange(30) % 3)
    >>> forget = torch.utils.data.Subset(data, range(0, 30, 3))  # the first class
    >>> edited = selective_synaptic_dampening(net, forget, data, alpha=1.0)
    >>> bool((edited[0].weight.abs() <= net[0].weight.abs()).all())
    True
    """
    if not isinstance(train, Mapping):
        train = parameter_importance(model, train, measure=measure, batch_size=batch_size, loss=loss)
    found = parameter_importance(model, forget, measure=measure, batch_size=batch_size, loss=loss)
    return dampening(train, found, alpha=alpha, lam=lam).apply(model)


def _gradients(
    model: nn.Module, own: dict[str, nn.Parameter], batch: Batch, measure: Measure, loss: Loss
) -> dict[str, Tensor]:
    with evaluating(model), torch.enable_grad():
        output = model(batch.inputs)
        if measure == "loss":
            check_labels(batch.targets, output.shape[-1])
            scalar = loss(restrict(output, batch.classes), batch.targets)
        else:
            scalar = output.flatten(1).square().sum(1).mean()
        found = torch.autograd.grad(scalar, list(own.values()), allow_unused=True)
    return {name: g for name, g in zip(own, found, strict=True) if g is not None}
