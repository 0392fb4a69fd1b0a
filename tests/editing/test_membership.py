from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu, norm
from torch import nn
from torch.utils.data import TensorDataset

from neuropil.editing import finetuned, forgetting_scores, likelihood_ratio_attack, membership_attack
from neuropil.editing.membership import answer_signals, area_error, attack_of
from neuropil.errors import ConfigError, DataError, NonFiniteError, ShapeError
from tests.editing.forgetting import generator, gone, kept, samples
from tests.training.worlds import CLASSES, FEATURES, mlp


def attack() -> partial[Any]:
    return partial(membership_attack, mlp(), samples(40, seed=1), samples(40, seed=2))


def lira() -> partial[Any]:
    inside = torch.rand(8, 30, generator=generator()) > 0.5
    inside[0], inside[1] = True, False
    margins = torch.randn(8, 30, generator=generator(1)) + inside.float()
    return partial(likelihood_ratio_attack, margins, inside, margins[2].clone(), inside[2].clone())


def judged() -> partial[Any]:
    return partial(
        forgetting_scores, mlp(), gone(), kept(), unseen=samples(40, seed=2), reference=mlp(seed=1)
    )


PARTS = [("analysis", attack), ("analysis", lira), ("analysis", judged)]


def noise(count: int, seed: int) -> TensorDataset:
    """Labels without reason, that only memory can answer."""
    drawn = generator(seed)
    return TensorDataset(
        torch.randn(count, FEATURES, generator=drawn), torch.randint(CLASSES, (count,), generator=drawn)
    )


def test_what_was_learned_by_heart_is_found_out_and_what_was_never_seen_is_not() -> None:
    seen, unseen, other = noise(150, 1), noise(150, 2), noise(150, 3)
    net = finetuned(
        nn.Sequential(nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, CLASSES)), seen, epochs=80,
        generator=generator(), make_optimizer=partial(torch.optim.Adam, lr=3e-3),
    )  # fmt: skip
    told = membership_attack(net, seen, unseen)
    blind = membership_attack(net, other, unseen)
    assert told.low > 0.85 and told.advantage > 0.6
    assert blind.low < 0.5 and blind.advantage < 0.3


def test_signals_by_numpy() -> None:
    net, data = mlp(), samples(9)
    logits = net(data.tensors[0]).detach().double().numpy()
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    own = p[np.arange(9), data.tensors[1]]
    expected = np.stack([-np.log(own), -(p * np.log(p)).sum(1), np.log(own / (1 - own))], axis=1)
    np.testing.assert_allclose(answer_signals(net, data), expected, rtol=1e-5, atol=1e-7)


def test_the_margin_of_a_sure_answer_is_not_lost() -> None:
    net = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[60.0], [0.0]]))
    found = answer_signals(net, TensorDataset(torch.ones(1, 1), torch.tensor([0])))
    assert found[0, 2] == pytest.approx(60.0)


def test_the_area_is_that_of_mann_and_whitney_and_its_error_that_of_hanley_and_mcneil() -> None:
    random = np.random.default_rng(0)
    scores, seen = random.normal(size=200), np.arange(200) % 3 == 0
    scores[seen] += 0.5
    found = attack_of(scores, seen)
    u = mannwhitneyu(scores[seen], scores[~seen]).statistic
    assert found.area == pytest.approx(u / (seen.sum() * (~seen).sum()))
    assert found.low < found.area < found.high
    assert (found.high - found.low) / 2 == pytest.approx(
        norm.ppf(0.975) * area_error(found.area, seen.sum(), (~seen).sum())
    )
    # the published example: area 0.893 of 51 abnormal and 58 normal images has a standard error of 0.032
    assert area_error(0.893, 51, 58) == pytest.approx(0.032, abs=1e-3)


def test_the_interval_holds_the_true_area_nineteen_times_in_twenty() -> None:
    random, truth, held = np.random.default_rng(1), norm.cdf(0.8 / np.sqrt(2)), 0
    seen = np.arange(160) < 80
    for _ in range(300):
        found = attack_of(random.normal(size=160) + 0.8 * seen, seen)
        held += found.low <= truth <= found.high
    assert 0.9 < held / 300 < 0.99


def test_likelihood_ratios_of_two_normal_distributions() -> None:
    shadows, n = 400, 60
    inside = torch.rand(shadows, n, generator=generator()) > 0.5
    centre = torch.randn(n, generator=generator(1))
    margins = centre + 1.5 * inside + torch.randn(shadows, n, generator=generator(2))
    target = centre + 0.7
    found = likelihood_ratio_attack(margins, inside, target, torch.arange(n) % 2 == 0)
    expected = norm.logpdf(0.7, 1.5, 1) - norm.logpdf(0.7, 0, 1)
    assert np.abs(found.scores - expected).mean() < 0.15
    each = likelihood_ratio_attack(margins, inside, target, torch.arange(n) % 2 == 0, shared_spread=False)
    assert np.abs(each.scores - expected).mean() < 0.2


def test_scores_of_forgetting() -> None:
    net = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[9.0, 0.0], [0.0, 9.0]]))
    swapped = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        swapped.weight.copy_(torch.tensor([[0.0, 9.0], [9.0, 0.0]]))
    eye = 10 * torch.eye(2)
    right, wrong = TensorDataset(eye, torch.tensor([0, 1])), TensorDataset(eye, torch.tensor([1, 0]))
    found = forgetting_scores(net, wrong, right, reference=swapped)
    assert (found.forget_accuracy, found.retain_accuracy, found.balance) == (0.0, 1.0, 1.0)
    assert found.distance == pytest.approx(2**0.5) and found.divergence == pytest.approx(1.0)
    assert found.attack is None
    assert forgetting_scores(net, right, wrong).balance == 0.0


def test_what_is_refused() -> None:
    net = mlp()
    with pytest.raises(ConfigError, match="folds is 1"):
        membership_attack(net, gone(), kept(), folds=1)
    with pytest.raises(DataError, match="2 seen"):
        membership_attack(net, samples(2), kept())
    with pytest.raises(NonFiniteError):
        membership_attack(
            net, TensorDataset(torch.full((9, FEATURES), torch.nan), torch.zeros(9).long()), kept()
        )
    with pytest.raises(DataError, match="both kinds"):
        attack_of(np.zeros(3), np.zeros(3, bool))
    with pytest.raises(ShapeError, match=r"\[shadows, samples\]"):
        likelihood_ratio_attack(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(3), torch.zeros(3))
    with pytest.raises(DataError, match="each sample needs"):
        likelihood_ratio_attack(
            torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(3), torch.tensor([True, False, True])
        )
