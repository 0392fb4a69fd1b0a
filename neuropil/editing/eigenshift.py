"""EigenShift: damp the few directions of a language model's head through which undesired tokens are generated.

Shaik, Mazhar, Srivastava, Akhtar: Redefining Experts: Interpretable Decomposition of Language Models for Toxicity
Mitigation. NeurIPS 2025. arXiv:2509.16660
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, DataError, ShapeError, nearest
from neuropil.nn.finite import check_finite
from neuropil.nn.sharing import shared_copy
from neuropil.nn.sites import attach, head_name
from neuropil.plotting import canvas

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

Model = TypeVar("Model", bound=nn.Module)
Ranking = Literal["difference", "magnitude"]
_RANKINGS = ("difference", "magnitude")


@dataclass(frozen=True, eq=False)
class OutputSubspaceEditor:
    """The head of a language model by its singular directions, and which of them carry the undesired tokens.

    With `W = U diag(S) V^T`, hidden states before undesired tokens and before other tokens are compared by their
    coordinates `V^T h`. Damping the singular values of the directions that are used more before undesired tokens
    leaves every other direction of the head, and the rest of the model, as it was. No training.

    >>> from neuropil.nn import Decoder, read_sites
    >>> model, tokens = Decoder(width=16, layers=1, heads=2), torch.arange(40).reshape(2, 20)
    >>> hidden = read_sites(model, tokens, sites=["hidden"])["hidden"].flatten(0, 1)
    >>> editor = fit_output_subspace(model, hidden[:10], hidden[10:])
    >>> edited = editor.apply(model, components=2, damping=0.5)
    >>> edited.embedding.weight is model.embedding.weight
    True
    """

    left: Float[Tensor, "vocabulary directions"]
    singular_values: Float[Tensor, " directions"]  # descending
    right: Float[Tensor, "directions width"]
    undesired: Float[Tensor, " directions"]  # mean coordinate before undesired tokens
    ordinary: Float[Tensor, " directions"]  # before all others

    @property
    def difference(self) -> Float[Tensor, " directions"]:
        """How much farther each coordinate goes before undesired tokens, in the direction in which it goes there.

        The signs of singular vectors are arbitrary; this is not.
        """
        return (self.undesired - self.ordinary) * torch.where(self.undesired < 0, -1.0, 1.0)

    def ranked(self, by: Ranking = "difference", *, skip: int = 1) -> list[int]:
        """Directions, those that carry undesired tokens most first.

        `by` difference takes what goes farther before undesired tokens, magnitude also what goes less far. The first
        `skip` singular directions are left out: they are common to all tokens, and damping them ruins the model.
        """
        if by not in _RANKINGS:
            raise ConfigError(f"OutputSubspaceEditor: no ranking {by!r}{nearest(by, _RANKINGS)}")
        if not 0 <= skip < len(self.singular_values):
            raise ConfigError(
                f"OutputSubspaceEditor: skip is {skip}, expected 0 to {len(self.singular_values) - 1}"
            )
        score = self.difference if by == "difference" else self.difference.abs()
        return [skip + int(i) for i in score[skip:].argsort(descending=True, stable=True)]

    def weight(self, directions: Sequence[int], damping: float) -> Float[Tensor, "vocabulary width"]:
        """The head's weight with the singular values of some directions multiplied by `damping`.

        Raises ConfigError for a direction that there is not, or a damping outside [0, 1].
        """
        if not 0 <= damping <= 1:
            raise ConfigError(f"OutputSubspaceEditor: damping is {damping}, expected 0 (removed) to 1 (kept)")
        wrong = [i for i in directions if not 0 <= i < len(self.singular_values)]
        if wrong:
            raise ConfigError(
                f"OutputSubspaceEditor: no direction {wrong[0]}, expected 0 to {len(self.singular_values) - 1}"
            )
        values = self.singular_values.clone()
        values[list(directions)] *= damping
        return (self.left * values) @ self.right

    def apply(
        self,
        model: Model,
        components: int = 4,
        damping: float = 0.6,
        *,
        by: Ranking = "difference",
        skip: int = 1,
    ) -> Model:
        """The model with its head damped along the first `components` directions of `ranked`.

        A head that is tied to the embedding is untied: inputs are read as before. Raises ConfigError for numbers out
        of range and ShapeError when the model's head is of another shape.
        """
        if not 1 <= components <= len(self.singular_values) - skip:
            raise ConfigError(
                f"OutputSubspaceEditor: components is {components}, expected 1 to {len(self.singular_values) - skip}"
            )
        return replace_head(model, self.weight(self.ranked(by, skip=skip)[:components], damping))


@torch.no_grad()
def fit_output_subspace(
    model: nn.Module,
    undesired: Float[Tensor, "n width"],
    ordinary: Float[Tensor, "m width"],
) -> OutputSubspaceEditor:
    """Compare final hidden states before undesired tokens with those before ordinary ones, in the head's directions.

    Hidden states are what enters the head (site `hidden` of `neuropil.nn.read_sites`). Works on every causal model
    with a linear head that `neuropil.nn.activation_sites` finds.

    Raises ShapeError when states are not `[n, width of the head]`, DataError when there are none of a kind and
    NonFiniteError for NaN or infinity.

    >>> from neuropil.nn import Decoder
    >>> model = Decoder(width=8, layers=1, heads=2)
    >>> fit_output_subspace(model, torch.randn(20, 8), torch.randn(30, 8)).right.shape
    torch.Size([8, 8])
    """
    weight = _head_weight(model)
    for name, states in (("undesired", undesired), ("ordinary", ordinary)):
        if states.dim() != 2 or states.shape[1] != weight.shape[1]:
            raise ShapeError(
                f"fit_output_subspace: {name} states are {list(states.shape)}, expected [n, {weight.shape[1]}]"
            )
        if not len(states):
            raise DataError(f"fit_output_subspace: there are no {name} states, expected at least one")
        check_finite(states, f"fit_output_subspace, {name} states")
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    means = [(states.to(right) @ right.mT).mean(0) for states in (undesired, ordinary)]
    return OutputSubspaceEditor(left, values, right, *means)


def damp_hidden(model: Model, units: Sequence[int], damping: float) -> Model:
    """Neuron damping: the model whose head sees some units of the final hidden state multiplied by `damping`.

    >>> from neuropil.nn import Decoder
    >>> model = Decoder(width=8, layers=1, heads=2)
    >>> bool((damp_hidden(model, [3], 0.0).head.weight[:, 3] == 0).all())
    True
    """
    weight = _head_weight(model).clone()
    if not 0 <= damping <= 1:
        raise ConfigError(f"damp_hidden: damping is {damping}, expected 0 (removed) to 1 (kept)")
    wrong = [unit for unit in units if not 0 <= unit < weight.shape[1]]
    if wrong:
        raise ConfigError(f"damp_hidden: no unit {wrong[0]}, expected 0 to {weight.shape[1] - 1}")
    weight[:, list(units)] *= damping
    return replace_head(model, weight)


def replace_head(model: Model, weight: Float[Tensor, "vocabulary width"]) -> Model:
    """A model with another head, which shares everything else; a tied embedding keeps its own weight.

    Raises ShapeError when the head is of another shape.
    """
    old = _head_weight(model)
    if old.shape != weight.shape:
        raise ShapeError(f"replace_head: the head is {list(old.shape)}, got a weight of {list(weight.shape)}")
    edited = shared_copy(model)
    edited.get_submodule(head_name(model)).weight = nn.Parameter(weight.detach().to(old).clone())
    return edited


class MeanDifferenceShift(nn.Module):
    """Pulls hidden states back along one direction where they go farther than ordinary ones do on average.

    `h <- h - strength * relu(h . direction - threshold) * direction`, with `[..., width]` in and out. The strong
    baseline of edits to a head: it acts on states, not on weights.

    >>> shift = MeanDifferenceShift(torch.tensor([0.0, 2.0]), threshold=1.0)
    >>> shift(torch.tensor([[5.0, 3.0], [5.0, 0.5]]))
    tensor([[5.0000, 1.0000],
            [5.0000, 0.5000]])
    """

    direction: Tensor
    threshold: Tensor

    def __init__(self, direction: Float[Tensor, " width"], threshold: float, strength: float = 1.0) -> None:
        super().__init__()
        length = direction.norm()
        if not bool(length > 0):
            raise DataError("MeanDifferenceShift: the direction is zero; are both groups of states the same?")
        self.register_buffer("direction", direction / length)
        self.register_buffer("threshold", torch.as_tensor(threshold).to(direction))
        self.strength = strength

    def forward(self, hidden: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Shift what lies beyond the threshold."""
        beyond = (hidden @ self.direction - self.threshold).relu()
        return hidden - self.strength * beyond[..., None] * self.direction

    def extra_repr(self) -> str:
        """What it was made with."""
        return f"strength={self.strength}"


@torch.no_grad()
def shift_mean_difference(
    model: Model,
    undesired: Float[Tensor, "n width"],
    ordinary: Float[Tensor, "m width"],
    strength: float = 1.0,
) -> Model:
    """The model with a `MeanDifferenceShift` before its head, from undesired and ordinary final hidden states.

    >>> from neuropil.nn import Decoder
    >>> model = Decoder(width=8, layers=1, heads=2)
    >>> shift_mean_difference(model, torch.randn(20, 8) + 1, torch.randn(30, 8)).head
    Linear(
      in_features=8, out_features=256, bias=False
      (shift): MeanDifferenceShift(strength=1.0)
    )
    """
    direction = undesired.mean(0) - ordinary.mean(0)
    threshold = float((ordinary @ (direction / direction.norm().clamp_min(1e-30))).mean())
    edited = shared_copy(model)
    attach(edited, "hidden", MeanDifferenceShift(direction, threshold, strength), "shift")
    return edited


def expert_scores(
    activity: Float[Tensor, "n units"], undesired: Bool[Tensor, " n"]
) -> Float[Tensor, " units"]:
    """Area under the ROC curve of each unit as a detector of undesired samples: 0.5 says nothing, 1 everything.

    Ties count half. Raises DataError unless there are samples of both kinds.

    >>> expert_scores(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([False, True, True]))
    tensor([1.])
    """
    check_finite(activity, "expert_scores, activity")
    positive, negative = int(undesired.sum()), int((~undesired).sum())
    if not positive or not negative:
        raise DataError(
            f"expert_scores: got {positive} undesired and {negative} other samples, expected both"
        )
    ranks = _ranks(activity.double())[undesired].sum(0)
    return ((ranks - positive * (positive + 1) / 2) / (positive * negative)).float()


@dataclass(frozen=True, eq=False)
class ExpertStability:
    """Whether the same units are experts on two samples of the same kind."""

    first: Float[Tensor, " units"]
    second: Float[Tensor, " units"]
    rank_correlation: float  # Spearman

    def plot(self) -> Any:
        """One score against the other."""
        figure, axes = canvas()
        axes[0].plot(self.first.numpy(), self.second.numpy(), ".", alpha=0.6)
        axes[0].set(
            xlabel="score, first sample", ylabel="second sample", title=f"rho = {self.rank_correlation:.2f}"
        )
        return figure


def expert_stability(first: Float[Tensor, " units"], second: Float[Tensor, " units"]) -> ExpertStability:
    """Spearman's rank correlation of expert scores from two samples.

    Raises ShapeError unless both are vectors of one length, DataError for fewer than two units.

    >>> expert_stability(torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.2, 0.4, 0.5])).rank_correlation
    1.0
    """
    if first.dim() != 1 or first.shape != second.shape:
        raise ShapeError(
            f"expert_stability: got {list(first.shape)} and {list(second.shape)}, expected [units] twice"
        )
    if len(first) < 2:
        raise DataError(f"expert_stability: got {len(first)} units, expected at least two")
    for scores in (first, second):
        check_finite(scores, "expert_stability, scores")
    both = torch.stack([_ranks(scores.double()[:, None])[:, 0] for scores in (first, second)])
    if not bool(both.std(1).min() > 0):
        return ExpertStability(first.detach(), second.detach(), 0.0)
    return ExpertStability(first.detach(), second.detach(), round(float(torch.corrcoef(both)[0, 1]), 12))


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1 of each column `[n, units]`, ties sharing their mean."""
    ordered = values.sort(0).values.mT.contiguous()
    wanted = values.mT.contiguous()
    below = torch.searchsorted(ordered, wanted, right=False)
    upto = torch.searchsorted(ordered, wanted, right=True)
    return ((below + upto + 1).double() / 2).mT


def _head_weight(model: nn.Module) -> Tensor:
    weight: Tensor = model.get_submodule(head_name(model)).weight.detach()  # type: ignore[operator]
    return weight
