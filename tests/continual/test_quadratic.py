from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuropil.continual import EWC, MAS, SI, OnlineEWC, ParameterL2, QuadraticPenalty
from neuropil.data.task import Batch
from neuropil.errors import ConfigError
from neuropil.training import Backprop
from tests.continual.springs import gradient, move, quadratic, random_stiffness
from tests.training.worlds import loss_on, mlp, practise, stream


def test_value_and_gradient_are_those_of_the_formula() -> None:
    model = mlp().double()
    held = QuadraticPenalty(model, strength=3.0)
    stiffness, anchor = random_stiffness(model), move(model)
    held.consolidate(stiffness)
    move(model)
    expected = 1.5 * quadratic(model, [(stiffness, anchor)])
    torch.testing.assert_close(held.penalty(), expected)
    for a, b in zip(gradient(7 * held.penalty(), model), gradient(7 * expected, model), strict=True):
        torch.testing.assert_close(a, b)


def test_gradcheck() -> None:
    model = torch.nn.Linear(3, 2).double()
    held = QuadraticPenalty(model, strength=0.7)
    held.consolidate(random_stiffness(model))

    def at(weight: Tensor) -> Tensor:
        model.weight = torch.nn.Parameter(weight) if not isinstance(weight, torch.nn.Parameter) else weight
        return held.penalty()

    weight = torch.nn.Parameter(torch.randn(2, 3).double())
    assert torch.autograd.gradcheck(at, (weight,))


def test_stiffness_adds_up_and_the_anchor_moves() -> None:
    model = mlp().double()
    held = QuadraticPenalty(model, strength=2.0)
    kept = []
    for _ in range(3):
        kept.append(random_stiffness(model))
        anchor = move(model)
        held.consolidate(kept[-1])
    move(model)
    together = {name: sum(k[name] for k in kept) for name in anchor}
    torch.testing.assert_close(held.penalty(), quadratic(model, [(together, anchor)]))


def test_without_springs_or_strength_the_loss_passes_as_it_is() -> None:
    model, loss = mlp(), torch.tensor(2.0)
    assert QuadraticPenalty(model, strength=1.0).on_loss(loss, None) is loss
    slack = QuadraticPenalty(model, strength=0.0)
    slack.consolidate(random_stiffness(model))
    assert slack.on_loss(loss, None) is loss


@pytest.mark.parametrize("kind", [EWC, SI, MAS, ParameterL2])
@pytest.mark.parametrize("bad", [-1.0, float("nan")])
def test_a_bad_strength_is_refused(kind: type[EWC], bad: float) -> None:
    with pytest.raises(ConfigError, match=f"{kind.__name__}.strength"):
        kind(mlp(), strength=bad)


@pytest.mark.parametrize(("kind", "strength"), [(SI, 30.0), (MAS, 10.0), (ParameterL2, 10.0)])
def test_it_holds_an_earlier_task(kind: type[SI], strength: float) -> None:
    first, second = stream(2)
    forgotten = []
    for now in (0.0, strength):
        model = mlp()
        plugin = kind(model, strength=now)
        plugin.before_task(first)
        practise(model, [plugin], first, 8, 0.1)
        learned = loss_on(model, first)
        plugin.after_task(first)
        plugin.before_task(second)
        practise(model, [plugin], second, 8, 0.03)
        forgotten.append(loss_on(model, first) - learned)
    assert 0 < forgotten[1] < 0.6 * forgotten[0]


@pytest.mark.parametrize("kind", [EWC, OnlineEWC])
@pytest.mark.parametrize("width", [4, 700])  # the second has weights enough for the compiled loop
def test_a_pull_on_gradients_is_the_step_of_the_penalised_loss(kind: type[EWC], width: int) -> None:
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(16, width), nn.Tanh(), nn.Linear(width, 3))
    x, y = torch.randn(32, 16), torch.randint(0, 3, (32,))
    learned = []
    for via in ("loss", "gradients"):
        model = copy.deepcopy(start)
        plugin = kind(model, strength=0.5, via=via)
        torch.manual_seed(1)
        plugin.consolidate(random_stiffness(model))
        move(model)
        learner = Backprop(model, torch.optim.SGD(model.parameters(), lr=0.1), plugins=[plugin])
        losses = [learner.update(Batch(x, y))["loss"] for _ in range(5)]
        learned.append((losses, model))
    (penalised, theirs), (alone, ours) = learned
    assert all(a > b for a, b in zip(penalised, alone, strict=True))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_weight_without_a_gradient_is_left_alone() -> None:
    model = mlp()
    plugin = EWC(model, strength=1.0, via="gradients")
    assert plugin.on_gradients({}) == {}
    plugin.consolidate(random_stiffness(model))
    name, parameter = next(iter(model.named_parameters()))
    given = torch.ones_like(parameter)
    found = plugin.on_gradients({name: given})
    assert set(found) == {name}
    assert torch.equal(given, torch.ones_like(parameter))


def test_another_way_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"EWC.via: got 'gradient'.*gradients"):
        EWC(mlp(), via="gradient")  # type: ignore[arg-type]


def test_gradients_given_away_become_what_the_pure_answer_is() -> None:
    model = mlp()
    plugin = EWC(model, strength=3.0, via="gradients")
    plugin.consolidate(random_stiffness(model))
    move(model)
    given = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    before = {name: value.clone() for name, value in given.items()}
    answer = plugin.on_gradients(given)
    assert all(torch.equal(given[name], before[name]) for name in given)
    taken = plugin.take_gradients(given)
    assert all(torch.equal(taken[name], answer[name]) and taken[name] is given[name] for name in given)


def test_a_plugin_of_ones_own_answers_in_its_own_way_to_gradients_given_away() -> None:
    class Halved(EWC):
        def on_gradients(self, gradients: Any) -> Any:
            return {name: value / 2 for name, value in gradients.items()}

    model = mlp()
    plugin = Halved(model, strength=3.0, via="gradients")
    plugin.consolidate(random_stiffness(model))
    given = {"0.weight": torch.ones(2)}
    assert torch.equal(plugin.take_gradients(given)["0.weight"], torch.full((2,), 0.5))
    assert torch.equal(given["0.weight"], torch.ones(2))
