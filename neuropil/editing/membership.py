"""Whether a network still gives away that it has seen some samples: membership inference, and what else tells.

Shokri, Stronati, Song, Shmatikov: Membership Inference Attacks Against Machine Learning Models. S&P 2017.
arXiv:1610.05820; likelihood ratios: Carlini, Chien, Nasr, Song, Terzis, Tramer: Membership Inference Attacks From First
Principles. S&P 2022. arXiv:2112.03570; the interval of an area: Hanley, McNeil: Radiology 143, 29 (1982).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional

from neuropil.data.batching import batches
from neuropil.data.task import Samples
from neuropil.editing.descent import placed
from neuropil.errors import ConfigError, DataError, NonFiniteError, ShapeError
from neuropil.plotting import canvas
from neuropil.training.allowed import restrict
from neuropil.training.evaluating import evaluating

SIGNALS = ("loss", "entropy", "margin")  # of an answer; what the attack looks at


@dataclass(frozen=True, eq=False)
class MembershipAttack:
    """How well samples that were seen are told from samples that were not; an area of 0.5 is not at all."""

    area: float  # under the receiver operating characteristic, of scores on samples left out of fitting
    low: float  # 95 % interval of the area
    high: float
    advantage: float  # largest true minus false positive rate, in [0, 1]
    scores: NDArray[np.float64]  # [samples], higher where the attack believes that it was seen
    seen: NDArray[np.bool_]  # [samples], the truth

    def plot(self) -> Any:
        """Receiver operating characteristic, and scores of both kinds, as a matplotlib figure."""
        figure, (left, right) = canvas(2)
        false, true, _ = roc_curve(self.seen, self.scores)
        left.plot(false, true, color="#173f56")
        left.plot([0, 1], [0, 1], color="#8a8a8a", linestyle="--", linewidth=1)
        left.set(xlabel="false positive rate", ylabel="true positive rate", title=f"area {self.area:.3f}")
        bins = np.linspace(self.scores.min(), self.scores.max() + 1e-9, 30).tolist()
        for name, part, colour in (("seen", self.seen, "#4a8f98"), ("not seen", ~self.seen, "#c98f5b")):
            right.hist(self.scores[part], bins=bins, alpha=0.6, label=name, color=colour, density=True)
        right.legend(frameon=False)
        right.set(xlabel="score of the attack", ylabel="density", title="scores")
        return figure


def membership_attack(
    model: nn.Module,
    seen: Samples,
    unseen: Samples,
    *,
    folds: int = 5,
    random_state: int = 0,
) -> MembershipAttack:
    """Attack a model with a logistic regression on the loss, the entropy and the margin of its answers.

    After unlearning give the forgotten samples as `seen`, and samples of the same kind that were never trained on as
    `unseen`: an area of 0.5 or below means that the attack finds no rule that tells them apart (one found in noise
    does a little worse than chance on what was left out).
    Fitted on some folds, the attack is scored on the one left out.

    Args:
        model: `inputs -> logits [batch, classes]`, looked at in evaluation mode; it stays as it is.
        seen: pairs that were learned (and perhaps unlearned); at least `folds`.
        unseen: pairs that were not; at least `folds`.
        folds: of the cross-validation, at least 2.
        random_state: seed of the folds.

    Raises:
        ConfigError: too few folds. DataError: too few samples. NonFiniteError: answers are NaN or infinite.

    >>> net = nn.Linear(4, 3)
    >>> draw = lambda: torch.utils.data.TensorDataset(torch.randn(40, 4), torch.arange(40) % 3)
    >>> attack = membership_attack(net, draw(), draw())
    >>> 0 <= attack.low <= attack.area <= attack.high <= 1
    True
    """
    if folds < 2:
        raise ConfigError(f"membership_attack: folds is {folds}, expected at least 2")
    inside, outside = answer_signals(model, seen), answer_signals(model, unseen)
    if min(len(inside), len(outside)) < folds:
        raise DataError(
            f"membership_attack: {len(inside)} seen and {len(outside)} unseen samples, "
            f"expected at least {folds} of each, the number of folds"
        )
    x = np.concatenate([inside, outside])
    y = np.concatenate([np.ones(len(inside), bool), np.zeros(len(outside), bool)])
    attack = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    split = StratifiedKFold(folds, shuffle=True, random_state=random_state)
    return attack_of(cross_val_predict(attack, x, y, cv=split, method="decision_function"), y)


def attack_of(scores: NDArray[np.float64], seen: NDArray[np.bool_]) -> MembershipAttack:
    """What scores `[samples]` say about which samples were `seen` `[samples]`; both kinds must occur.

    >>> attack_of(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])).area
    0.75
    """
    scores, seen = np.asarray(scores, np.float64), np.asarray(seen, bool)
    if scores.shape != seen.shape or scores.ndim != 1 or not 0 < seen.sum() < len(seen):
        raise DataError(
            f"attack: scores {list(scores.shape)} and truths {list(seen.shape)} with {int(seen.sum())} seen; "
            "expected both [samples], and samples of both kinds"
        )
    if not np.isfinite(scores).all():
        raise NonFiniteError(f"attack: {int((~np.isfinite(scores)).sum())} scores are NaN or infinite")
    area = float(roc_auc_score(seen, scores))
    half = 1.959964 * area_error(area, int(seen.sum()), int((~seen).sum()))
    false, true, _ = roc_curve(seen, scores)
    return MembershipAttack(
        area, max(0.0, area - half), min(1.0, area + half), float((true - false).max()), scores, seen
    )


def area_error(area: float, positives: int, negatives: int) -> float:
    """Standard error of an area under the curve (Hanley and McNeil).

    >>> round(area_error(0.5, 100, 100), 4)  # sqrt((n + m + 1) / (12 n m))
    0.0409
    """
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    return math.sqrt(max(0.0, spread) / (positives * negatives))


@torch.no_grad()
def answer_signals(model: nn.Module, samples: Samples) -> NDArray[np.float64]:
    """Loss, entropy and margin `[samples, 3]` of the answers to pairs: the traces that learning leaves.

    The margin is the logit of the label's probability, `log p / (1 - p)`.
    """
    rows = []
    with evaluating(model):
        for batch in batches(samples, 500, shuffle=False):
            x, y, classes = placed(batch, model)
            log_p = functional.log_softmax(restrict(model(x).double(), classes), dim=-1)
            if bool(log_p.isnan().any()):
                raise NonFiniteError("membership: the model's answers are NaN or infinite")
            loss = -log_p.gather(1, y[:, None])[:, 0]
            entropy = torch.special.entr(log_p.exp()).sum(-1)
            rows.append(torch.stack([loss.clamp_max(1e3), entropy, _logit(log_p, y)], dim=1).cpu())
    return torch.cat(rows).numpy()


def likelihood_ratio_attack(
    confidences: Tensor, inside: Tensor, target: Tensor, seen: Tensor, *, shared_spread: bool = True
) -> MembershipAttack:
    """LiRA: compare a model's confidence in each sample with that of shadow models that saw it, or did not.

    Train shadow models on random halves of data of the same kind, take each one's `margin` on every sample (the third
    column of `answer_signals`), and score a sample by the logarithm of the ratio of two normal densities.

    Args:
        confidences: `[shadows, samples]` margins of shadow models.
        inside: `[shadows, samples]` bool, whether the shadow was trained on the sample; each sample needs both kinds.
        target: `[samples]` margins of the model under attack.
        seen: `[samples]` bool, whether that model saw the sample: the truth, which only the judgement looks at.
        shared_spread: one standard deviation for all samples, as few shadow models need; else one for each.

    Raises:
        ShapeError: shapes do not fit. DataError: a sample that all shadows saw, or none. NonFiniteError: NaN or
        infinity in the margins.

    >>> shadows = torch.tensor([[3.0, 2.9], [1.0, 1.1], [3.1, 3.0], [0.9, 1.0]])
    >>> inside = torch.tensor([[True, True], [False, False], [True, True], [False, False]])
    >>> likelihood_ratio_attack(shadows, inside, torch.tensor([3.0, 1.0]), torch.tensor([True, False])).area
    1.0
    """
    if confidences.shape != inside.shape or confidences.dim() != 2 or target.shape != confidences.shape[1:]:
        raise ShapeError(
            f"likelihood_ratio_attack: confidences {list(confidences.shape)}, inside {list(inside.shape)}, target "
            f"{list(target.shape)}; expected [shadows, samples] twice and [samples]"
        )
    if not bool(confidences.isfinite().all()) or not bool(target.isfinite().all()):
        raise NonFiniteError("likelihood_ratio_attack: a margin is NaN or infinite")
    margins, inside = confidences.double(), inside.bool()
    log_density = []
    for kind in (inside, ~inside):
        count = kind.sum(0)
        if not bool((count > 0).all()):
            raise DataError(
                "likelihood_ratio_attack: each sample needs a shadow that saw it and one that did not"
            )
        mean = (margins * kind).sum(0) / count
        squares = ((margins - mean).square() * kind).sum(0)
        spread = squares.sum() / count.sum() if shared_spread else squares / count
        variance = spread.clamp_min(1e-12)
        log_density.append(-0.5 * ((target.double() - mean).square() / variance + variance.log()))
    return attack_of((log_density[0] - log_density[1]).numpy(), seen.bool().numpy())


def _logit(log_p: Tensor, labels: Tensor) -> Tensor:
    """`log p - log(1 - p)` of the labels, without cancellation where p is close to 1."""
    own = log_p.gather(1, labels[:, None])[:, 0]
    others = log_p.scatter(1, labels[:, None], -torch.inf).logsumexp(-1)
    return (own - others).clamp(-1e3, 1e3)
