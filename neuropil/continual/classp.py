"""CLASSP: weights that have been used a lot are adjusted little, and small adjustments are left out.

Oswaldo Ludwig: CLASSP: a Biologically-Inspired Approach to Continual Learning through Adjustment Suppression and
Sparsity Promotion. 2024. arXiv:2405.09637
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuropil.errors import ConfigError, IncompatibleError, nearest
from neuropil.kernels.suppressed import suppressed_step

ONE_PASS = 8192  # weights from which on a loop of its own is worth the call
SAMPLE = 4096  # squared gradients that a quantile is estimated from, of each tensor
RULES = ("weight", "tensor")


class CLASSP(Optimizer):
    """Optimizer for continual learning: each weight remembers how much it was used, and moves the less for it.

    For every weight by itself, with its usage `G` (0 at first) and its gradient `g`, where `g^2 > threshold`:

        G <- G + |g|^power
        w <- w - lr * g / (eps + G)^(1/power)      with scale_updates, else   w <- w - lr * g

    and nothing at all elsewhere. One number is remembered per weight; power 2 without a threshold is AdaGrad.

    The published protocol learns the first task with the threshold and unscaled while usage accumulates, and later
    tasks without the threshold and scaled: `protect()` is that switch. Usage is kept from task to task, in
    `Trainer` as well. Weights never used move by `lr * g / eps`, so an `eps` below about 0.001 lets them run away.

    A threshold has the scale of squared gradients, which shrink with the loss and the batch. `quantile=0.8` sets it
    so that the largest 20 % of a group's gradients pass, estimated every `refresh` steps.

    A step of a perceptron 784-256-10 on 64 images takes 1.35 times SGD's in a loop of such steps (one pass over weight,
    gradient and usage), with other powers than 1 up to 2.5 times; a larger batch (256 images: 1.17) or a convolutional
    network (1.11) hides it. EWC, two numbers a weight, takes 1.25 times SGD's there.

    Args:
        params: parameters, or groups of them with settings of their own.
        lr: learning rate, at least 0.
        threshold: squared gradient from which on a weight is adjusted, at least 0; not together with `quantile`.
        quantile: share of weights left alone, in [0, 1).
        power: exponent of the usage, above 0.
        eps: added to the usage, above 0.
        scale_updates: divide by the usage.
        refresh: steps between estimates of the quantile.
        usage_decay: share of the usage that is forgotten at each step, in [0, 1).
        rule: "weight" as published; "tensor" as the released code does it: a tensor is adjusted as a whole when any
            of its gradients is nonzero (and the threshold is below 1), and the power is not applied to `|g|`.
        maximize: ascend.

    Raises:
        ConfigError: a setting out of range, or threshold and quantile together.
        IncompatibleError: complex parameters or sparse gradients.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> optimizer = CLASSP(net.parameters(), lr=0.1, quantile=0.8)
    >>> nn.functional.cross_entropy(net(torch.randn(16, 4)), torch.arange(16) % 2).backward()
    >>> optimizer.step()
    >>> bool(optimizer.state[net[0].weight]["usage"].count_nonzero() < 16)  # of 32 weights
    True
    >>> optimizer.protect(lr=0.03)  # and now the next task
    >>> optimizer.param_groups[0]["scale_updates"], optimizer.param_groups[0]["quantile"]
    (True, None)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.1,
        *,
        threshold: float = 0.0,
        quantile: float | None = None,
        power: float = 1.0,
        eps: float = 0.01,
        scale_updates: bool = False,
        refresh: int = 20,
        usage_decay: float = 0.0,
        rule: Literal["weight", "tensor"] = "weight",
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr, "threshold": threshold, "quantile": quantile, "power": power, "eps": eps,
            "scale_updates": scale_updates, "refresh": refresh, "usage_decay": usage_decay, "rule": rule,
            "maximize": maximize, "estimate": 0.0, "steps": 0,
        }  # fmt: skip
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _check(group)
            for parameter in group["params"]:
                if parameter.is_complex():
                    raise IncompatibleError(
                        f"CLASSP: a parameter of dtype {parameter.dtype}, expected real numbers; view it as real"
                    )
        except ValueError:
            self.param_groups.pop()
            raise

    def protect(self, **settings: Any) -> None:
        """From now on earlier tasks are protected: updates are scaled and no threshold leaves weights out.

        `settings` (lr, eps ...) are laid over every group's.
        """
        chosen = {"scale_updates": True, "threshold": 0.0, "quantile": None, **settings}
        for group in self.param_groups:
            unknown = sorted(set(chosen) - set(group))
            if unknown:
                raise ConfigError(f"CLASSP.protect: no setting {unknown[0]!r}{nearest(unknown[0], group)}")
            _check({**group, **chosen})
        for group in self.param_groups:
            group.update(chosen)

    def start_task(self) -> None:
        """A new task begins: usage stays, for it is what protects earlier ones."""

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Make one step; `closure` computes the loss anew and is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step(group)
        return loss

    def _step(self, group: dict[str, Any]) -> None:
        weights = [p for p in group["params"] if p.grad is not None]
        gradients: list[Tensor] = [p.grad for p in weights]
        if any(g.is_sparse or g.layout is not torch.strided for g in gradients):
            raise IncompatibleError(
                "CLASSP: a sparse gradient, expected dense ones; use sparse=False in nn.Embedding"
            )
        if group["rule"] == "tensor":
            weights = [p for p in weights if float(bool(p.grad.any())) > group["threshold"]]
            gradients = [p.grad for p in weights]
        bound = 0.0 if group["rule"] == "tensor" else self._threshold(group, gradients) ** 0.5
        rate = group["lr"] if group["maximize"] else -group["lr"]
        if group["power"] == 1:
            large = [p.numel() >= ONE_PASS for p in weights]
            for p in itertools.compress(weights, large):
                suppressed_step(
                    p, p.grad, self._usage(p), rate=rate, eps=group["eps"], bound=bound,
                    decay=group["usage_decay"], scale=group["scale_updates"],
                )  # fmt: skip
            weights = [p for p, is_large in zip(weights, large, strict=True) if not is_large]
            gradients = [p.grad for p in weights]
        if not weights:
            return
        if (
            bound
        ):  # hardshrink keeps |g| above it and sets the rest to zero, which adds no usage and moves nothing
            gradients = [nn.functional.hardshrink(g, bound) for g in gradients]
        usage = [self._usage(p) for p in weights]
        power = 1.0 if group["rule"] == "tensor" else group["power"]
        work = _accumulate(usage, gradients, power, group["usage_decay"])
        if group["scale_updates"]:
            divisors = _suppression(usage, work, group["power"], group["eps"])
            torch._foreach_addcdiv_(weights, gradients, divisors, rate)
        else:
            torch._foreach_add_(weights, gradients, alpha=rate)

    def _usage(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "usage" not in state:
            state["usage"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        usage: Tensor = state["usage"]
        return usage

    def _threshold(self, group: dict[str, Any], gradients: list[Tensor]) -> float:
        if group["quantile"] is None:
            return float(group["threshold"])
        if gradients and group["steps"] % group["refresh"] == 0:
            group["estimate"] = _quantile(gradients, group["quantile"])
        group["steps"] += 1
        return float(group["estimate"])


def _accumulate(usage: list[Tensor], gradients: list[Tensor], power: float, decay: float) -> list[Tensor]:
    """`G <- (1 - decay) G + |g|^power`; returns what was added, memory that the rest of the step may write on."""
    if decay:
        torch._foreach_mul_(usage, 1 - decay)
    used: list[Tensor] = list(torch._foreach_abs(gradients))
    if power == 2:
        torch._foreach_mul_(used, used)
    elif power != 1:
        torch._foreach_pow_(used, power)
    torch._foreach_add_(usage, used)
    return used


def _suppression(usage: list[Tensor], into: list[Tensor], power: float, eps: float) -> list[Tensor]:
    """`(eps + G)^(1/power)`."""
    for divisor, amount in zip(into, usage, strict=True):
        torch.add(amount, eps, out=divisor)
    if power == 2:
        torch._foreach_sqrt_(into)
    elif power != 1:
        torch._foreach_pow_(into, 1 / power)
    return into


def _quantile(gradients: list[Tensor], share: float) -> float:
    """Quantile of the squared gradients of all tensors, from evenly spaced samples of each in proportion."""
    stride = max(1, sum(g.numel() for g in gradients) // SAMPLE)
    squares = torch.cat([g.flatten()[::stride].float().square() for g in gradients])
    return float(torch.quantile(squares, share))


def _check(group: dict[str, Any]) -> None:
    """Raise ConfigError in one line for a setting out of range."""
    ranges: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
        ("lr", "at least 0", lambda v: v >= 0),
        ("threshold", "at least 0", lambda v: v >= 0),
        ("quantile", "a share in [0, 1)", lambda v: v is None or 0 <= v < 1),
        ("power", "above 0", lambda v: v > 0),
        ("eps", "above 0", lambda v: v > 0),
        ("refresh", "at least 1", lambda v: v >= 1),
        ("usage_decay", "a share in [0, 1)", lambda v: 0 <= v < 1),
    )
    for name, expected, fits in ranges:
        value = group[name]
        if not fits(value) or value == float("inf"):
            raise ConfigError(f"CLASSP.{name}: got {value}, expected {expected}")
    if group["quantile"] is not None and group["threshold"]:
        raise ConfigError("CLASSP: threshold and quantile are two ways to say one thing; give one of them")
    if group["rule"] not in RULES:
        raise ConfigError(f"CLASSP.rule: got {group['rule']!r}{nearest(str(group['rule']), RULES)}")
