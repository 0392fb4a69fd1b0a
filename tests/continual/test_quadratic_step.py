"""A pull that is added beside the finished gradients is the step of the penalised loss, to the last bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuropil.continual import EWC, MAS, SI, LwF, ParameterL2, QuadraticPenalty, Replay
from neuropil.data.task import Batch
from neuropil.errors import NonFiniteError
from neuropil.training import Backprop, Plugin
from neuropil.training.stepping import only_pull
from tests.continual.springs import move, random_stiffness

Make = Callable[[nn.Module], list[Plugin]]


class Watching(Plugin):
    """Acts on a loss by passing it, so that everything is asked step by step."""

    def on_loss(self, loss: Tensor, context: Any) -> Tensor:
        return loss


def network(dtype: torch.dtype = torch.float32, width: int = 300) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, width), nn.ReLU(), nn.Linear(width, 5)).to(dtype)


def held(kind: Any, model: nn.Module, **settings: Any) -> Any:
    plugin = kind(model, **{"strength": 0.5, **settings})
    torch.manual_seed(1)
    if kind is ParameterL2:
        plugin.after_task()
    else:
        plugin.consolidate(random_stiffness(model))
    move(model)
    return plugin


def batch(dtype: torch.dtype = torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(2)
    return Batch(torch.randn(32, 40, generator=generator).to(dtype), torch.arange(32) % 5)


def practise(
    plugin: Plugin, model: nn.Module, optimizer: Any, *, beside: list[Plugin], steps: int = 4
) -> Any:
    learner = Backprop(model, optimizer, plugins=[plugin, *beside])
    if isinstance(plugin, SI):
        plugin.before_task()
    losses = [learner.update(batch(next(model.parameters()).dtype))["loss"] for _ in range(steps)]
    return losses, [p.detach().clone() for p in model.parameters()]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05)


def groups(model: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.2}], lr=0.05
    )


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.01)


def some(model: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model[0].parameters(), lr=0.05, momentum=0.9)


@pytest.mark.parametrize("optimizer", [sgd, groups, adam])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [EWC, MAS, SI, ParameterL2])
def test_weights_and_losses_are_those_of_the_penalised_loss(
    kind: Any, dtype: torch.dtype, optimizer: Any
) -> None:
    answers = []
    for beside in ([], [Watching()]):
        model = network(dtype)
        plugin = held(kind, model)
        assert (only_pull([plugin, *beside]) is None) == bool(beside)
        answers.append(practise(plugin, model, optimizer(model), beside=beside))
    (losses, short), (told, long) = answers
    assert all(torch.equal(a, b) for a, b in zip(short, long, strict=True))
    assert losses == pytest.approx(told, rel=1e-6) and losses[0] > losses[-1]


def test_the_pull_with_gradients_is_the_same_too() -> None:
    answers = []
    for beside in ([], [Watching()]):
        model = network()
        plugin = held(EWC, model, via="gradients")
        answers.append(practise(plugin, model, sgd(model), beside=beside))
    (losses, short), (told, long) = answers
    assert losses == told
    assert all(torch.equal(a, b) for a, b in zip(short, long, strict=True))


def frozen(model: Any) -> None:
    model[0].weight.requires_grad_(False)


def hooked(model: Any) -> None:
    model[0].weight.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))


def hooked_after(model: Any) -> None:
    def clamp(weight: Any) -> None:
        weight.grad.clamp_(-0.01, 0.01)

    model[2].weight.register_post_accumulate_grad_hook(clamp)


def grown(model: Any) -> None:
    old = model[2]
    model[2] = nn.Linear(old.in_features, 7)
    with torch.no_grad():
        model[2].weight[:5], model[2].bias[:5] = old.weight, old.bias


@pytest.mark.parametrize("change", [frozen, hooked, hooked_after, grown], ids=lambda change: change.__name__)
@pytest.mark.parametrize("optimizer", [sgd, some])
def test_it_is_the_same_step_where_weights_are_special(change: Any, optimizer: Any) -> None:
    answers = []
    for beside in ([], [Watching()]):
        model = network()
        plugin = held(EWC, model)
        practise(plugin, model, sgd(model), beside=beside)  # springs have been looked up before the change
        torch.manual_seed(5)
        change(model)
        answers.append(practise(plugin, model, optimizer(model), beside=beside))
    (losses, short), (told, long) = answers
    assert all(torch.equal(a, b) for a, b in zip(short, long, strict=True))
    assert losses == pytest.approx(told, rel=1e-6)


class Idle(nn.Module):
    """One of its layers is not asked, and one looks words up with sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.asked, self.idle = nn.Linear(40, 5), nn.Linear(40, 5)
        self.table = nn.Embedding(6, 5, sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.asked(x) + self.table((x[:, 0] > 0).long())


@pytest.mark.parametrize("via", ["loss", "gradients"])
def test_a_weight_without_a_gradient_and_a_sparse_one(via: Any) -> None:
    answers = []
    for beside in ([], [Watching()]):
        model = Idle()
        plugin = EWC(model, strength=0.5, via=via)
        torch.manual_seed(1)
        names = [name for name, _ in model.named_parameters() if via == "loss" or "table" not in name]
        plugin.consolidate({name: torch.rand_like(model.get_parameter(name)) for name in names})
        move(model)
        answers.append(practise(plugin, model, sgd(model), beside=beside))
        start = plugin.state_dict()["anchor"]["idle.weight"]
        distance = float((model.idle.weight.detach() - start).norm())
        answers[-1] += (distance,)
    (losses, short, moved), (told, long, also) = answers
    assert all(torch.equal(a, b) for a, b in zip(short, long, strict=True))
    assert losses == pytest.approx(told, rel=1e-6) and moved == also


def test_weights_replaced_and_springs_loaded_between_steps() -> None:
    answers = []
    for beside in ([], [Watching()]):
        model: Any = network()
        plugin = held(EWC, model)
        practise(plugin, model, sgd(model), beside=beside)
        model[0].weight.data = model[0].weight.data.clone() + 0.01
        plugin.load_state_dict(copy.deepcopy(plugin.state_dict()))
        practise(plugin, model, sgd(model), beside=beside)
        plugin.strength = 0.1
        plugin.consolidate(random_stiffness_of(model))
        answers.append(practise(plugin, model, sgd(model), beside=beside)[1])
    assert all(torch.equal(a, b) for a, b in zip(*answers, strict=True))


def random_stiffness_of(model: nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(9)
    return random_stiffness(model)


def test_a_copied_model_and_plugin_learn_by_themselves() -> None:
    model = network()
    plugin = held(EWC, model)
    practise(plugin, model, sgd(model), beside=[])
    other, twin = copy.deepcopy((model, plugin))
    before = [p.detach().clone() for p in model.parameters()]
    learned = practise(twin, other, sgd(other), beside=[])[1]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    assert all(
        torch.equal(a, b)
        for a, b in zip(practise(plugin, model, sgd(model), beside=[])[1], learned, strict=True)
    )


def test_others_are_asked_as_ever() -> None:
    model = network()
    plugin = held(EWC, model)
    assert only_pull([plugin, Replay(per_class=1)]) is not None  # it acts on batches alone
    assert only_pull([plugin, LwF(model)]) is None
    assert only_pull([plugin, held(MAS, model)]) is None
    assert only_pull([]) is None
    assert only_pull([EWC(model)]) is None  # nothing is held yet

    class Doubled(QuadraticPenalty):
        def penalty(self) -> Tensor:
            return 2 * super().penalty()

    assert only_pull([held(Doubled, model)]) is None
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    assert only_pull([plugin]) is None  # gradients are being gathered over several batches


def test_what_is_not_finite_is_refused_before_the_step() -> None:
    model = network()
    plugin = held(EWC, model, strength=1e38)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(NonFiniteError, match="loss is inf"):
        Backprop(model, sgd(model), plugins=[plugin]).update(batch())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    plugin = held(EWC, model, strength=1.0, via="gradients")
    plugin.consolidate({"0.bias": torch.full((300,), 3e38)})
    move(model, 10.0)
    before = [p.detach().clone() for p in model.parameters()]
    plugin.strength = 1e3
    with pytest.raises(NonFiniteError, match=r"gradient of 0\.bias"):
        Backprop(model, sgd(model), plugins=[plugin]).update(batch())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_a_gradient_that_is_not_held_is_looked_at() -> None:
    model: Any = network()
    plugin = EWC(model, strength=1.0)
    plugin.consolidate({"0.weight": torch.ones_like(model[0].weight)})
    model[2].weight.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(NonFiniteError, match=r"gradient of 2\.weight"):
        Backprop(model, sgd(model), plugins=[plugin]).update(batch())
