"""Weights held by springs: what penalties on moving away from earlier weights share.

EWC, SI, MAS and L2 differ in how stiff the spring of each weight is and where it is anchored, in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from neuropil.continual.agem import AGEM
from neuropil.continual.projection import GradientProjection
from neuropil.errors import ConfigError, IncompatibleError, nearest
from neuropil.kernels.springs import Springs, add_pulls, pulls_and_energy
from neuropil.training.plugin import Gradients, LossContext, Plugin, Pull, acts

Via = Literal["loss", "gradients"]


class _Quadratic(torch.autograd.Function):
    """`strength / 2 * sum k (w - a)^2`; its gradient `strength k (w - a)` is a by-product of the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, strength: float, stiffness: list[Tensor], anchors: list[Tensor], *weights: Tensor
    ) -> Tensor:
        pulls, energy = pulls_and_energy([w.detach() for w in weights], anchors, stiffness, strength)
        ctx.strength, ctx.stiffness, ctx.anchors, ctx.pulls = strength, stiffness, anchors, pulls
        ctx.save_for_backward(*weights)
        return energy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *errors: Tensor) -> Any:
        pulls, ctx.pulls = ctx.pulls, None  # given away: scaled, and added to other gradients, in place
        if pulls is None:  # asked once more
            pulls = pulls_and_energy(ctx.saved_tensors, ctx.anchors, ctx.stiffness, ctx.strength)[0]
        if not errors[0].is_cpu or errors[0].item() != 1:
            torch._foreach_mul_(pulls, errors[0])
        return None, None, None, *pulls


class QuadraticPenalty(Plugin):
    """Plugin base: later losses carry `strength / 2 * sum_i k_i (w_i - a_i)^2`.

    A subclass says at the end of a task how stiff each weight's spring is, through `consolidate`, and how springs
    of several tasks become one, through `_merge`. The loss is a mean over the batch, which fixes the scale of
    `strength`.

    Args:
        model: the model that is trained.
        strength: weight of the penalty, at least 0.
        via: "loss" adds the penalty to the loss, in `on_loss`; "gradients" adds its gradient to that of the loss, in
            `on_gradients`: the same step, and the loss told is the task's alone. Weights that have no gradient are
            not pulled then. Where no other plugin acts on loss or gradients, `Backprop` adds the pull in one pass
            either way (`as_pull`).

    Raises:
        ConfigError: a negative strength, or another `via`.

    >>> net = nn.Linear(2, 2)
    >>> held = QuadraticPenalty(net, strength=10.0)
    >>> held.consolidate({name: torch.ones_like(p) for name, p in net.named_parameters()})
    >>> with torch.no_grad():
    ...     _ = net.bias.add_(1.0)
    >>> print(f"{held.penalty():.3f}")
    10.000
    """

    def __init__(self, model: nn.Module, *, strength: float, via: Via = "loss") -> None:
        if not strength >= 0:
            raise ConfigError(f"{type(self).__name__}.strength: got {strength}, expected at least 0")
        if via not in get_args(Via):
            raise ConfigError(f"{type(self).__name__}.via: got {via!r}{nearest(str(via), get_args(Via))}")
        self.model, self.strength, self.via = model, strength, via
        self._stiffness: dict[str, Tensor] = {}
        self._anchor: dict[str, Tensor] = {}  # where the sum of all quadratics has its minimum
        self._springs: Springs | None = None  # these, as they were at the last step

    def penalty(self) -> Tensor:
        """The penalty at the model's present weights, a scalar that can be differentiated once.

        It is counted from its own minimum: for EWC the sum of several tasks' quadratics differs by a constant.
        """
        if not self._stiffness:
            return torch.zeros(())
        weights = list(self._grow().values())
        anchors = [self._anchor[name] for name in self._stiffness]
        value: Tensor = _Quadratic.apply(self.strength, list(self._stiffness.values()), anchors, *weights)  # type: ignore[no-untyped-call]
        return value

    def beside(self, plugins: Sequence[Plugin]) -> None:
        """Refuse to pull at gradients that a plugin listed before has confined already."""
        before = plugins[: next((i for i, other in enumerate(plugins) if other is self), 0)]
        for other in before if self.via == "gradients" else ():
            if isinstance(other, GradientProjection | AGEM):
                who, name = type(self).__name__, type(other).__name__
                raise IncompatibleError(
                    f"{who} after {name}: its pull would go where {name} has cleared the gradients; list {who} first"
                )

    def on_loss(self, loss: Tensor, context: LossContext) -> Tensor:
        """Add the penalty."""
        pulls = self._stiffness and self.strength and self.via == "loss"
        return loss + self.penalty() if pulls else loss

    @torch.no_grad()
    def on_gradients(self, gradients: Gradients) -> Gradients:
        """Add the penalty's gradient, where it does not come with the loss."""
        if self.via == "loss" or not self._stiffness or not self.strength:
            return gradients
        return self._pull(
            {name: g.clone() if name in self._stiffness else g for name, g in gradients.items()}
        )

    @torch.no_grad()
    def take_gradients(self, gradients: Gradients) -> Gradients:
        """The same, in place: of a large model it is memory that takes time, and this leaves out a copy."""
        overridden = type(self).on_gradients is not QuadraticPenalty.on_gradients
        if overridden or self.via == "loss" or not self._stiffness or not self.strength:
            return self.on_gradients(gradients)
        return self._pull(gradients)

    def as_pull(self) -> Pull | None:
        """The springs, where they are all that this plugin does to the loss."""
        as_here = not acts(self, "on_loss", "penalty", as_in=QuadraticPenalty)
        alone = not acts(self, "on_gradients", "take_gradients", as_in=QuadraticPenalty)
        told = self.via == "loss"
        if not self._stiffness or not self.strength or not as_here or not (told or alone):
            return None
        springs = self._springs
        if springs is None or not springs.are(*self._columns(), self.strength):
            self._grow()
            springs = self._springs = Springs(*self._columns(), self.strength)
        return Pull(springs, told=told, alone=alone)

    def _columns(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Weights, anchors and stiffnesses."""
        weights: list[Tensor] = [_parameter(self.model, name) for name in self._stiffness]
        return weights, [self._anchor[name] for name in self._stiffness], list(self._stiffness.values())

    def _pull(self, gradients: Gradients) -> Gradients:
        found = self._grow()
        held = [name for name in self._stiffness if name in gradients]
        weights = [found[name] for name in held]
        if held:
            add_pulls(
                [gradients[name] for name in held], weights, [self._anchor[name] for name in held],
                [self._stiffness[name] for name in held], self.strength,
            )  # fmt: skip
        return gradients

    @torch.no_grad()
    def consolidate(self, stiffness: dict[str, Tensor]) -> None:
        """Add springs of `stiffness`, by parameter name, at the model's present weights."""
        self._grow()
        for name, new in stiffness.items():
            here = self.model.get_parameter(name).detach()
            old, anchor = self._stiffness.get(name), self._anchor.get(name)
            if old is None or anchor is None:
                self._stiffness[name], self._anchor[name] = new.clone(), here.clone()
            else:
                self._stiffness[name], self._anchor[name] = self._merge(old, anchor, new, here)

    def _grow(self) -> dict[str, nn.Parameter]:
        """The weights held. Those of outputs that have grown since hang free: no stiffness, anchored where they are."""
        found = {name: self.model.get_parameter(name) for name in self._stiffness}
        for name, stiffness in self._stiffness.items():
            if stiffness.shape == found[name].shape:
                continue
            here = found[name].detach()
            if not stiffness.dim():  # one number for all: it holds as many as the anchor has
                if self._anchor[name].shape == here.shape:
                    continue
                stiffness = stiffness.expand_as(self._anchor[name])
            known = len(stiffness)
            if stiffness.shape != here.shape and stiffness.shape[1:] == here.shape[1:] and known < len(here):
                self._stiffness[name] = torch.cat([stiffness, torch.zeros_like(here[known:])])
                self._anchor[name] = torch.cat([self._anchor[name], here[known:].clone()])
        return found

    def _merge(self, old: Tensor, anchor: Tensor, new: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
        """Stiffness and anchor of an older and a newer spring together: both stiff, anchored at the latest weights."""
        return old + new, here.clone()

    def state_dict(self) -> dict[str, Any]:
        """Stiffness and anchors."""
        return {"stiffness": dict(self._stiffness), "anchor": dict(self._anchor)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._stiffness, self._anchor = (
            {name: value.to(self.model.get_parameter(name)) for name, value in state[kind].items()}
            for kind in ("stiffness", "anchor")
        )


def _parameter(model: nn.Module, name: str) -> nn.Parameter:
    """`model.get_parameter(name)`, which asks and says more than a step has time for."""
    *path, last = name.split(".")
    module: nn.Module | None = model
    for part in path:
        module = None if module is None else module._modules.get(part)
    found = None if module is None else module._parameters.get(last)
    return model.get_parameter(name) if found is None else found
