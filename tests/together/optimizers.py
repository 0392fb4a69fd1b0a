"""How optimizers take part: torch's own and this library's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW

from neuropil.continual import CLASSP
from tests.together.world import Act, World, together


def rows(now: Tensor, before: Tensor) -> bool:
    """Whether nothing is less than before; what has grown since is not looked at."""
    return bool(((now[: len(before)] if before.dim() else now) >= before).all())


def used(make: Callable[[Any], torch.optim.Optimizer]) -> Callable[[World], Act]:
    def act(world: World) -> Act:
        world.take("optimizer", make)
        world.optimizer = make(world.model.parameters())
        for group in world.optimizer.param_groups:
            group["lr"] *= world.lr / World().lr  # of a network that wants shorter steps
        yield

    return act


def named(name: str, act: Any) -> Any:
    act.__name__ = name
    return act


OPTIMIZERS: dict[str, tuple[Any, Callable[[Any], torch.optim.Optimizer]]] = {
    "momentum": (SGD, lambda p: SGD(p, lr=0.03, momentum=0.8)),
    "weight_decay": (SGD, lambda p: SGD(p, lr=0.2, weight_decay=1e-3)),
    "adam": (Adam, lambda p: Adam(p, lr=0.01)),
    "adamw": (AdamW, lambda p: AdamW(p, lr=0.01, weight_decay=0.01)),
}
for _name, (_kind, _make) in OPTIMIZERS.items():
    together("optimizer", _kind)(named(_name, used(_make)))


@together("optimizer", CLASSP)
def classp(world: World) -> Act:
    """Usage is kept from task to task and never shrinks, and a step is the shorter the more a weight was used."""
    world.take("optimizer", CLASSP)
    world.optimizer = optimizer = CLASSP(world.model.parameters(), lr=0.2, quantile=0.5)
    worst: list[float] = []
    seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def before(gradients: dict[str, Tensor]) -> None:
        named = dict(world.model.named_parameters())
        seen[:] = [
            (
                named[name],
                named[name].detach().clone(),
                gradient.clone(),
                optimizer.state[named[name]]["usage"].clone(),
            )
            for name, gradient in gradients.items()
            if "usage" in optimizer.state[named[name]]
        ]

    def after() -> None:
        rate, eps = (optimizer.param_groups[0][key] for key in ("lr", "eps"))
        for weight, old, gradient, usage in seen:
            usage = usage + gradient.abs()
            wanted = old - rate * gradient / (eps + usage)
            worst.append(float((weight.detach() - wanted).abs().max()))
            assert torch.allclose(optimizer.state[weight]["usage"], usage)

    yield
    kept = {name: optimizer.state[p]["usage"].clone() for name, p in world.model.named_parameters()
            if "usage" in optimizer.state[p]}  # fmt: skip
    assert kept, "no weight was used"
    optimizer.protect(lr=0.05)
    world.on_gradients.append(before)
    world.on_step.append(after)
    yield
    assert worst and max(worst) < 1e-5, f"a step differs from the rule by {max(worst, default=1.0):.1e}"
    named = dict(world.model.named_parameters())
    for name, usage in kept.items():
        assert rows(optimizer.state[named[name]]["usage"], usage), f"usage of {name} was lost"
