from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from neuropil.continual import EWC, OnlineEWC
from neuropil.errors import ConfigError
from neuropil.training import fisher_diagonal
from tests.training.worlds import CLASSES, loss_on, mlp, practise, same, stream, task


def ewc(kind: type[EWC] = EWC, **settings: Any) -> Any:
    return lambda model: kind(
        model, strength=5.0, samples=10, generator=torch.Generator().manual_seed(7), **settings
    )


PARTS = [("plugin", ewc), ("plugin", partial(ewc, OnlineEWC)), ("plugin", partial(ewc, via="gradients"))]


def random_fisher(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.rand_like(p) for name, p in model.named_parameters()}


def move(model: nn.Module, size: float = 0.3) -> dict[str, Tensor]:
    """Change all weights; returns them."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=size)
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def quadratic(model: nn.Module, springs: list[tuple[dict[str, Tensor], dict[str, Tensor]]]) -> Tensor:
    return sum(
        (fisher[name] * (p - anchor[name]) ** 2).sum()
        for fisher, anchor in springs
        for name, p in model.named_parameters()
    )


def gradient(value: Tensor, model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(value, list(model.parameters())))


def test_one_task_is_the_quadratic() -> None:
    model = mlp().double()
    plugin = EWC(model, strength=3.0)
    fisher, anchor = random_fisher(model), move(model)
    assert plugin.penalty() == 0
    plugin.consolidate(fisher)
    assert plugin.penalty() == 0
    move(model)
    expected = 1.5 * quadratic(model, [(fisher, anchor)])
    torch.testing.assert_close(plugin.penalty(), expected)
    for a, b in zip(gradient(plugin.penalty(), model), gradient(expected, model), strict=True):
        torch.testing.assert_close(a, b)


def test_several_tasks_are_the_sum_of_their_quadratics_up_to_a_constant() -> None:
    model = mlp().double()
    plugin, springs = EWC(model, strength=2.0), []
    for _ in range(3):
        springs.append((random_fisher(model), move(model)))
        plugin.consolidate(springs[-1][0])
    constants = []
    for _ in range(3):
        move(model)
        expected = quadratic(model, springs)
        constants.append(float((expected - plugin.penalty()).detach()))
        for a, b in zip(gradient(plugin.penalty(), model), gradient(expected, model), strict=True):
            torch.testing.assert_close(a, b)
    assert constants == pytest.approx([constants[0]] * 3)


def test_its_gradient_can_be_asked_for_again() -> None:
    model = mlp().double()
    plugin = EWC(model, strength=2.0)
    plugin.consolidate(random_fisher(model))
    move(model)
    value = plugin.penalty()
    weights = list(model.parameters())
    first = torch.autograd.grad(value, weights, retain_graph=True)
    second = torch.autograd.grad(3 * value, weights)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(3 * a, b)


def test_springs_that_no_task_needs_stay_slack() -> None:
    model = mlp()
    plugin = EWC(model, strength=1.0)
    for _ in range(2):
        plugin.consolidate({name: torch.zeros_like(p) for name, p in model.named_parameters()})
        move(model)
    assert plugin.penalty() == 0 and all(a.isfinite().all() for a in plugin.state_dict()["anchor"].values())


def test_online_springs_fade_and_move() -> None:
    model = mlp().double()
    plugin = OnlineEWC(model, strength=2.0, decay=0.7)
    stiffness = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for _ in range(3):
        fisher, anchor = random_fisher(model), move(model)
        plugin.consolidate(fisher)
        stiffness = {name: 0.7 * stiffness[name] + fisher[name] for name in stiffness}
    move(model)
    torch.testing.assert_close(plugin.penalty(), quadratic(model, [(stiffness, anchor)]))


def test_penalty_is_added_to_the_loss() -> None:
    model = mlp()
    plugin = EWC(model, strength=4.0)
    plugin.consolidate(random_fisher(model))
    move(model)
    assert plugin.on_loss(torch.tensor(2.0), None) == 2.0 + plugin.penalty()


@pytest.mark.parametrize("kind", [EWC, OnlineEWC])
def test_bad_settings_are_refused(kind: type[EWC]) -> None:
    for strength in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match=f"{kind.__name__}.strength"):
            kind(mlp(), strength=strength)
    with pytest.raises(ConfigError, match=r"OnlineEWC.decay: got 1.5"):
        OnlineEWC(mlp(), decay=1.5)


def test_fisher_of_softmax_regression_is_the_closed_form() -> None:
    """Labels drawn from p: E[(onehot(y) - p)_k^2] = p_k (1 - p_k), times x_i^2 for the weight of input i."""
    torch.manual_seed(0)
    model = nn.Linear(2, 3).double()
    x = torch.tensor([[1.0, -0.5]], dtype=torch.double)
    count = 2500
    data = TensorDataset(x.repeat(count, 1), torch.zeros(count).long())
    fisher = fisher_diagonal(model, data, count=count, generator=torch.Generator().manual_seed(0))
    p = functional.softmax(model(x), -1)[0].detach()
    spread = (p * (1 - p))[:, None]
    torch.testing.assert_close(fisher["bias"], spread[:, 0], rtol=0.05, atol=0)
    torch.testing.assert_close(fisher["weight"], spread * x.square(), rtol=0.05, atol=0)


@pytest.mark.parametrize("classes", [None, (0, 2, 3)])
def test_fisher_is_the_mean_of_squared_gradients_sample_by_sample(classes: tuple[int, ...] | None) -> None:
    model, data = mlp(), task().train
    inputs = data.tensors[0][:9]
    found = fisher_diagonal(
        model, TensorDataset(inputs, torch.zeros(9).long()), count=9, classes=classes,
        generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    seed = int(torch.randint(2**31, (), generator=generator))
    order = np.random.default_rng([seed, 0]).permutation(9)
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    allowed = torch.tensor(classes or range(CLASSES))
    for x in inputs[order]:
        log_p = functional.log_softmax(model(x[None])[0, allowed], -1)
        p = torch.zeros(1, CLASSES)
        p[0, allowed] = log_p.detach().exp()
        label = torch.multinomial(p, 1, generator=generator)[0]
        gradients = torch.autograd.grad(log_p[allowed == label][0], list(model.parameters()))
        for name, g in zip(expected, gradients, strict=True):
            expected[name] += g**2 / 9
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_fisher_leaves_modes_and_gradients_alone() -> None:
    model = mlp(dropout=0.5)
    model.inner.eval()  # as a frozen normalisation would be
    fisher_diagonal(model, task().train, count=3)
    assert model.training and model.dropout.training and not model.inner.training
    assert all(p.grad is None for p in model.parameters())


def test_fisher_can_ask_another_way() -> None:
    model = mlp()
    usual = fisher_diagonal(model, task().train, count=3, generator=torch.Generator().manual_seed(0))
    doubled = fisher_diagonal(
        model,
        task().train,
        count=3,
        generator=torch.Generator().manual_seed(0),
        predict=lambda x: 0 * model(x),
    )
    assert usual["leave.weight"].any() and not doubled["leave.weight"].any()


def test_it_holds_an_earlier_task() -> None:
    forgotten = []
    first, second = stream(2)
    for strength in (0.0, 100.0):
        model = mlp()
        plugin = EWC(model, strength=strength, samples=48, generator=torch.Generator().manual_seed(0))
        practise(model, [], first, 5, 0.1)
        learned = loss_on(model, first)
        plugin.after_task(first)
        practise(model, [plugin], second, 5, 0.03)
        forgotten.append(loss_on(model, first) - learned)
    assert 0 < forgotten[1] < 0.6 * forgotten[0]


def test_state_is_a_copy_of_nothing_but_its_own() -> None:
    model = mlp()
    plugin = EWC(model, strength=1.0)
    plugin.consolidate(random_fisher(model))
    anchor = {k: v.clone() for k, v in plugin.state_dict()["anchor"].items()}
    move(model)
    assert same(plugin.state_dict()["anchor"], anchor)
