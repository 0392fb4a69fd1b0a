from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.utils.data import TensorDataset

from neuropil.editing import (
    Dampening,
    choose_dampening,
    dampening,
    finetuned,
    forgetting_scores,
    parameter_importance,
    selective_synaptic_dampening,
)
from neuropil.errors import ConfigError, LabelError, NonFiniteError, ShapeError
from tests.editing.forgetting import gone, part, samples
from tests.training.worlds import CLASSES, FEATURES, MODELS, Branches, mlp


def edit(model: nn.Module) -> nn.Module:
    return selective_synaptic_dampening(model, gone(), samples(), alpha=1.0, lam=0.5, batch_size=8)


def without_labels(model: nn.Module) -> nn.Module:
    return selective_synaptic_dampening(model, gone(), samples(), alpha=0.8, measure="output", batch_size=8)


def make(how: Any, network: Any) -> Any:
    return how, network()


def dampen() -> partial[Any]:
    return partial(dampening, {"w": torch.rand(4, 3) + 0.1}, {"w": 9 * torch.rand(4, 3)}, alpha=2.0)


PARTS = [
    *(("edit", partial(make, edit, network)) for network in MODELS),
    ("edit", partial(make, without_labels, mlp)),
    ("analysis", dampen),
]


def linear(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(FEATURES, CLASSES)


def test_the_importance_of_a_linear_layer_by_numpy() -> None:
    net, data = linear(), samples(20)
    found = parameter_importance(net, data, batch_size=8)
    x, y = (t.numpy().astype(np.float64) for t in data.tensors)
    w, b = (p.detach().numpy().astype(np.float64) for p in (net.weight, net.bias))
    expected = np.zeros_like(w)
    for rows in (slice(0, 8), slice(8, 16), slice(16, 20)):
        logits = x[rows] @ w.T + b
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        error = p - np.eye(CLASSES)[y[rows].astype(int)]
        expected += ((error.T @ x[rows]) / len(error)) ** 2 / 3
    np.testing.assert_allclose(found["weight"], expected, rtol=1e-4)


def test_the_importance_of_answers_is_the_size_of_the_gradient_of_their_length() -> None:
    net, data = linear(), samples(8)
    found = parameter_importance(net, data, batch_size=8, measure="output")
    x = data.tensors[0]
    answers = net(x).detach()
    torch.testing.assert_close(found["weight"], (2 * answers.mT @ x / 8).abs())
    torch.testing.assert_close(found["bias"], (2 * answers.mean(0)).abs())


def test_sample_by_sample_it_is_the_empirical_fisher_and_a_batch_of_one_says_the_same() -> None:
    net, data = mlp(), samples(12)
    each = parameter_importance(net, data, per_sample=True, batch_size=5)
    alone = parameter_importance(net, data, batch_size=1)
    together = parameter_importance(net, data, batch_size=12)
    for name in each:
        torch.testing.assert_close(each[name], alone[name])
    assert sum(float(v.sum()) for v in together.values()) < sum(float(v.sum()) for v in each.values())


def test_frozen_parameters_and_the_gradients_of_the_model_are_left_alone() -> None:
    net = mlp()
    net.enter.weight.requires_grad_(False)
    net.leave.bias.grad = torch.ones(CLASSES)
    found = parameter_importance(net, samples())
    assert "enter.weight" not in found and torch.equal(net.leave.bias.grad, torch.ones(CLASSES))
    assert edit(net).enter.weight is net.enter.weight


def test_importance_is_taken_in_evaluation_mode() -> None:
    net = Branches(dropout=0.5)
    net.train()
    first, second = parameter_importance(net, samples()), parameter_importance(net, samples())
    assert all(torch.equal(first[name], second[name]) for name in first) and net.training


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.floats(0, 50), st.floats(0, 5))
def test_the_rule_literally(seed: int, alpha: float, lam: float) -> None:
    random = np.random.default_rng(seed)
    whole, forget = random.exponential(size=(2, 30)) * (random.random((2, 30)) > 0.2)
    found = dampening({"w": torch.tensor(whole)}, {"w": torch.tensor(forget)}, alpha=alpha, lam=lam)
    for i in range(30):
        expected = min(1.0, lam * whole[i] / forget[i]) if forget[i] > alpha * whole[i] else 1.0
        assert found.factors["w"][i].item() == pytest.approx(expected, abs=1e-12)
    assert found.fraction == pytest.approx(float((found.factors["w"] < 1).double().mean()))
    assert found.fraction == found.by_parameter["w"]


def test_dead_parameters_and_those_that_matter_alike_are_not_touched() -> None:
    found = dampening({"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([0.0, 2.0])}, alpha=1.0, lam=0.1)
    assert torch.equal(found.factors["w"], torch.ones(2)) and found.fraction == 0


def test_a_larger_alpha_selects_a_subset_and_a_smaller_lam_dampens_more() -> None:
    net, data = mlp(), samples()
    whole, forget = parameter_importance(net, data), parameter_importance(net, gone())
    few, many = (dampening(whole, forget, alpha=a) for a in (3.0, 1.0))
    strong = dampening(whole, forget, alpha=1.0, lam=0.1)
    for name in whole:
        assert bool((many.factors[name][few.factors[name] < 1] < 1).all())
        assert bool((strong.factors[name] <= many.factors[name]).all())
    assert few.fraction < many.fraction


def test_stored_importances_give_the_same_edit_without_the_training_data() -> None:
    net = mlp()
    stored = parameter_importance(net, samples(), batch_size=8)
    a = selective_synaptic_dampening(net, gone(), stored, alpha=1.0, lam=0.5, batch_size=8)
    b = edit(net)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_a_digit_is_forgotten_and_the_others_are_kept() -> None:
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    train, test = TensorDataset(x[:1300], y[:1300]), TensorDataset(x[1300:], y[1300:])
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    net = finetuned(net, train, epochs=12, batch_size=32, generator=torch.Generator().manual_seed(0))
    whole = parameter_importance(net, train, batch_size=32)
    seen = parameter_importance(net, part(train, True, 3), batch_size=32)

    def score(edited: nn.Module) -> float:
        return forgetting_scores(edited, part(train, True, 3), part(train, False, 3)).balance

    found = choose_dampening(net, [dampening(whole, seen, alpha=a) for a in (3.0, 5.0, 10.0, 30.0)], score)
    forget, rest = part(test, True, 3), part(test, False, 3)
    before, after = (forgetting_scores(model, forget, rest) for model in (net, found.apply(net)))
    assert before.forget_accuracy > 0.7 and after.forget_accuracy < 0.1
    assert after.retain_accuracy > before.retain_accuracy - 0.05
    assert 0 < found.fraction < 0.2


def test_a_tied_parameter_is_dampened_once_and_stays_tied() -> None:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    edited = Dampening({"0.weight": torch.full((3, 3), 0.5)}, 1.0, 1.0).apply(net)
    assert edited[0].weight is edited[1].weight
    assert torch.equal(edited[0].weight, 0.5 * net[0].weight)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_a_parametrized_weight_is_dampened_in_what_it_is_made_of() -> None:
    net = linear()
    parametrize.register_parametrization(net, "weight", Doubled())
    edited = edit(net)
    factors = dampening(
        parameter_importance(net, samples(), batch_size=8), parameter_importance(net, gone(), batch_size=8),
        alpha=1.0, lam=0.5,
    ).factors["parametrizations.weight.original"]  # fmt: skip
    torch.testing.assert_close(edited.weight, net.weight * factors)


def test_of_equal_candidates_the_first_is_chosen() -> None:
    net = linear()
    tries = [Dampening({"bias": torch.full((CLASSES,), 0.5)}, float(i), 1.0) for i in range(3)]
    assert choose_dampening(net, tries, lambda edited: 1.0) is tries[0]
    assert choose_dampening(net, tries, lambda edited: float(edited is net)) is tries[0]


def test_what_is_refused() -> None:
    net, w = linear(), {"w": torch.ones(2)}
    with pytest.raises(ConfigError, match="alpha is -1"):
        dampening(w, w, alpha=-1)
    with pytest.raises(ConfigError, match="lam is nan"):
        dampening(w, w, lam=float("nan"))
    with pytest.raises(ShapeError, match="such as 'v'"):
        dampening(w, {"v": torch.ones(2)})
    with pytest.raises(ShapeError, match="different parameters"):
        dampening(w, {"w": torch.ones(3)})
    with pytest.raises(NonFiniteError, match="'w'"):
        dampening(w, {"w": torch.tensor([1.0, -1.0])})
    with pytest.raises(ShapeError, match="the model has none"):
        dampening(w, w).apply(net)
    with pytest.raises(ConfigError, match="did you mean 'output'"):
        parameter_importance(net, samples(), measure="outputs")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="per_sample"):
        parameter_importance(net, samples(), measure="output", per_sample=True)
    with pytest.raises(LabelError, match="label 7"):
        parameter_importance(net, TensorDataset(torch.zeros(2, FEATURES), torch.tensor([0, 7])))
    with pytest.raises(NonFiniteError):
        parameter_importance(net, TensorDataset(torch.full((2, FEATURES), torch.nan), torch.tensor([0, 1])))
    with pytest.raises(NonFiniteError, match="'weight'"):
        parameter_importance(net, samples(8), loss=lambda o, t: functional.cross_entropy(o, t) * torch.inf)
    with pytest.raises(ConfigError, match="no candidates"):
        choose_dampening(net, [], lambda edited: 0.0)
    with pytest.raises(NonFiniteError, match="alpha=1"):
        choose_dampening(net, [Dampening({}, 1.0, 1.0)], lambda edited: float("nan"))
