"""The short way of a plain step is the optimizer's own, to the same bits; whatever hangs on a step still happens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import StepLR
from torch.optim.optimizer import register_optimizer_step_post_hook

from neuropil.training.stepping import _is_plain, clear_gradients, make_step


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 200), nn.ReLU(), nn.Linear(200, 10))


def practise(step: Any, clear: Any, **settings: Any) -> list[torch.Tensor]:
    net = network()
    first, last = net[0].parameters(), net[2].parameters()
    kind = settings.pop("kind", SGD)
    optimizer = kind([{"params": first}, {"params": last, "lr": 0.3}], lr=0.07, **settings)
    schedule = StepLR(optimizer, 2, 0.5)
    x = torch.randn(16, 30, generator=torch.Generator().manual_seed(1))
    for _ in range(5):
        clear(optimizer)
        net(x).square().mean().backward()
        step(optimizer)
        schedule.step()
    return [p.detach() for p in net.parameters()]


@pytest.mark.parametrize(
    "settings",
    [{}, {"momentum": 0.9}, {"weight_decay": 0.1}, {"maximize": True}, {"foreach": True}, {"kind": Adam}],
    ids=str,
)
def test_the_same_bits_as_the_optimizers_own(settings: dict[str, Any]) -> None:
    ours = practise(make_step, clear_gradients, **settings)
    own = practise(lambda optimizer: optimizer.step(), lambda optimizer: optimizer.zero_grad(), **settings)
    assert all(torch.equal(a, b) for a, b in zip(ours, own, strict=True))


def plain() -> tuple[nn.Parameter, SGD]:
    weight = nn.Parameter(torch.randn(1000, generator=torch.Generator().manual_seed(2)))
    weight.grad = torch.randn(1000, generator=torch.Generator().manual_seed(3))
    return weight, SGD([weight], lr=0.037)


def test_a_plain_step_is_short_and_exact() -> None:
    (short, ours), (long, own) = plain(), plain()
    assert _is_plain(ours)
    make_step(ours)
    own.step()
    assert torch.equal(short, long) and short.requires_grad and ours.state == own.state


def test_what_hangs_on_a_step_happens() -> None:
    seen = []
    _, optimizer = plain()
    optimizer.register_step_pre_hook(lambda *given: seen.append("before"))
    make_step(optimizer)
    _, optimizer = plain()
    optimizer.register_step_post_hook(lambda *given: seen.append("after"))
    make_step(optimizer)
    _, optimizer = plain()
    handle = register_optimizer_step_post_hook(lambda *given: seen.append("all"))
    make_step(optimizer)
    handle.remove()
    assert seen == ["before", "after", "all"]
    assert _is_plain(optimizer)


def test_an_optimizer_of_ones_own_is_asked() -> None:
    class Mine(SGD):
        def step(self, closure: Any = None) -> None:
            seen.append("step")

        def zero_grad(self, set_to_none: bool = True) -> None:
            seen.append("zero")

    seen: list[str] = []
    weight, _ = plain()
    mine = Mine([weight])
    clear_gradients(mine)
    make_step(mine)
    assert seen == ["zero", "step"] and weight.grad is not None


def test_a_weight_without_a_gradient_and_a_sparse_one_stay_right() -> None:
    weight, _ = plain()
    idle = nn.Parameter(torch.ones(3))
    make_step(SGD([weight, idle], lr=0.1))
    assert torch.equal(idle, torch.ones(3))
    table = nn.Embedding(5, 2, sparse=True)
    before = table.weight.detach().clone()
    optimizer = SGD(table.parameters(), lr=0.5)
    table(torch.tensor([1, 1, 3])).sum().backward()
    make_step(optimizer)
    torch.testing.assert_close(before - table.weight, torch.tensor([0.0, 1, 0, 0.5, 0])[:, None].expand(5, 2))
