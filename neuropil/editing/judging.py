"""What is left after unlearning: accuracies, traces of membership, and the distance to a network that never knew.

The distance of answers: Golatkar, Achille, Soatto: Forgetting Outside the Box. ECCV 2020. arXiv:2003.02960; their
divergence: Chundawat, Tarun, Mandal, Kankanhalli: Can Bad Teaching Induce Forgetting? AAAI 2023. arXiv:2205.08096
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.data.batching import batches
from neuropil.data.task import Samples
from neuropil.editing.descent import placed
from neuropil.editing.membership import MembershipAttack, membership_attack
from neuropil.errors import NonFiniteError
from neuropil.plotting import canvas
from neuropil.training.allowed import restrict
from neuropil.training.evaluating import evaluating


@dataclass(frozen=True, eq=False)
class ForgettingScores:
    """What a network knows of what it was to forget, and of what it was to keep; fractions in [0, 1]."""

    forget_accuracy: float
    retain_accuracy: float
    balance: float  # mean of the accuracy kept and of what is forgotten, (retain + 1 - forget) / 2
    attack: MembershipAttack | None  # forgotten samples against unseen ones, where those were given
    distance: float | None  # to the reference's answers on the forgotten samples, in [0, sqrt(2)]
    divergence: float | None  # Jensen-Shannon, in bits, of the same answers, in [0, 1]

    def plot(self) -> Any:
        """The scores as bars, as a matplotlib figure."""
        figure, (axes,) = canvas(1, width=5.0)
        found = {
            "accuracy, forgotten": self.forget_accuracy, "accuracy, kept": self.retain_accuracy,
            "membership area": None if self.attack is None else self.attack.area,
            "distance": self.distance, "divergence": self.divergence,
        }  # fmt: skip
        shown = {name: value for name, value in found.items() if value is not None}
        axes.barh(range(len(shown)), list(shown.values()), color="#4a8f98")
        axes.set(yticks=range(len(shown)), yticklabels=list(shown), xlim=(0, max(1.0, *shown.values())))
        axes.invert_yaxis()
        axes.set_title("after unlearning")
        return figure


def forgetting_scores(
    model: nn.Module,
    forget: Samples,
    retain: Samples,
    *,
    unseen: Samples | None = None,
    reference: nn.Module | None = None,
) -> ForgettingScores:
    """Judge a network after unlearning.

    Args:
        model: `inputs -> logits`, looked at in evaluation mode; it stays as it is.
        forget: pairs that it was to forget.
        retain: pairs that it was to keep, better such as it was not trained on.
        unseen: pairs of the same kind as `forget` that no network was trained on: gives the membership attack.
        reference: a network that was trained without `forget`: gives the distance and the divergence of answers.

    Raises:
        EmptyTaskError: no samples. DataError: too few for the attack. NonFiniteError: answers are NaN or infinite.

    >>> net = nn.Linear(4, 3)
    >>> data = torch.utils.data.TensorDataset(torch.randn(30, 4), torch.arange(30) % 3)
    >>> forget, retain = torch.utils.data.random_split(data, [10, 20])
    >>> forgetting_scores(net, forget, retain, reference=net).distance
    0.0
    """
    distance = divergence = None
    if reference is not None:
        mine, others = answers(model, forget).probabilities, answers(reference, forget).probabilities
        distance = float((mine - others).norm(dim=-1).mean())
        middle = torch.special.entr((mine + others) / 2).sum(-1)
        each = (torch.special.entr(mine).sum(-1) + torch.special.entr(others).sum(-1)) / 2
        divergence = float((middle - each).clamp_min(0).mean()) / math.log(2)
    gone, kept = answers(model, forget).accuracy, answers(model, retain).accuracy
    attack = None if unseen is None else membership_attack(model, forget, unseen)
    return ForgettingScores(gone, kept, (kept + 1 - gone) / 2, attack, distance, divergence)


@dataclass(frozen=True, eq=False)
class Answers:
    """A network's answers to samples."""

    probabilities: Tensor  # [samples, classes]
    targets: Tensor  # [samples]

    @property
    def accuracy(self) -> float:
        """Share of samples answered rightly."""
        return float((self.probabilities.argmax(-1) == self.targets).double().mean())


@torch.no_grad()
def answers(model: nn.Module, samples: Samples, *, batch_size: int = 500) -> Answers:
    """Softmax of a network's answers to all samples, in evaluation mode.

    >>> net = nn.Linear(2, 2)
    >>> answers(net, torch.utils.data.TensorDataset(torch.zeros(3, 2), torch.zeros(3).long())).probabilities.shape
    torch.Size([3, 2])
    """
    found, targets = [], []
    with evaluating(model):
        for batch in batches(samples, batch_size, shuffle=False):
            x, y, classes = placed(batch, model)
            p = functional.softmax(restrict(model(x), classes), dim=-1).cpu()
            if not bool(p.isfinite().all()):
                raise NonFiniteError("the model's answers are NaN or infinite")
            found.append(p)
            targets.append(y.cpu())
    return Answers(torch.cat(found), torch.cat(targets))
