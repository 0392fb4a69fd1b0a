"""Binary weights known only in the mean: each weight has a field, and what is certain about it hardly moves.

Li, Huang, Huang: Statistical mechanics of continual learning: variational principle and mean-field potential.
Physical Review E 108, 014309, 2023. arXiv:2212.02846
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from neuropil.data.task import Task
from neuropil.errors import ConfigError, IncompatibleError, ShapeError, UnknownNameError, nearest
from neuropil.training.plugin import LossContext, Plugin

ANSWERS = ("sign", "mean", "sample")
_LEAST_VARIANCE = 1e-10  # of a pre-activation: its square root needs a slope where all inputs are zero


class PreActivation(NamedTuple):
    """Gaussian that a unit's input becomes when it is summed over many uncertain weights."""

    mean: Tensor
    variance: Tensor


def preactivation(
    inputs: Tensor, magnetization: Tensor, input_variance: Tensor | None = None
) -> PreActivation:
    """Mean and variance of `sum_i w_i a_i / sqrt(n)` over independent binary weights and independent inputs.

    Args:
        inputs: mean inputs `a`, `[..., n]`.
        magnetization: mean weights `m` in [-1, 1], `[outputs, n]`; their variance is `1 - m^2`.
        input_variance: variance of the inputs, `[..., n]`, when they are themselves uncertain.

    >>> mean, variance = preactivation(torch.ones(4), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    >>> mean, variance
    (tensor([1.]), tensor([0.5000]))
    """
    n = magnetization.shape[-1]
    mean = nn.functional.linear(inputs, magnetization) / math.sqrt(n)
    uncertain = 1 - magnetization.square()
    second = inputs.square()
    if input_variance is None:
        return PreActivation(mean, nn.functional.linear(second, uncertain) / n)
    noisy = nn.functional.linear(input_variance, magnetization.square())
    return PreActivation(mean, (noisy + nn.functional.linear(second + input_variance, uncertain)) / n)


class BinaryVariationalLinear(nn.Module):
    """Linear layer of binary weights, learned through the mean of each.

    Weight `w_ji` is +1 with probability `1 / (1 + exp(-2 beta h_ji))`, `h` the layer's learned `field`; its mean, the
    magnetization, is `m = tanh(beta h)`. In training a unit's input is drawn from the Gaussian that the sum over
    uncertain weights tends to (see `preactivation`), anew for every sample and unit, with torch's random state or
    `generator`. In evaluation the weights are their signs, or as `answer` says. Inputs are divided by `sqrt(n)`.

    The gradient of a field has the factor `beta (1 - m^2)`: weights that have become certain are hard to move. Fields
    are not to be clipped, and start near zero, where nothing is certain yet. Adam at rates of 0.02 to 0.3 suits them.
    With Adam and the prior of `MeanFieldPrior`, a step on 784-200-10 units took four times that of real weights.

    Args:
        in_features: inputs `n`.
        out_features: outputs.
        beta: inverse temperature, above 0.
        bias: adds a real-valued bias.
        scale: standard deviation of the initial fields, at least 0.
        answer: weights of evaluation: "sign" `sign(h)`, "mean" `m`, "sample" as in training.
        generator: draws the noise; not copied by `copy.deepcopy` in all versions of torch.

    Shapes: `[..., in_features]` to `[..., out_features]`.

    Raises:
        ConfigError: a setting out of range.
        ShapeError: inputs of another size.

    >>> first, second = BinaryVariationalLinear(20, 32), BinaryVariationalLinear(32, 3)
    >>> net = nn.Sequential(first, nn.LayerNorm(32), nn.Tanh(), second)
    >>> optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    >>> nn.functional.cross_entropy(net(torch.randn(64, 20)), torch.arange(64) % 3).backward()
    >>> optimizer.step()
    >>> first.binary_weight().unique()
    tensor([-1.,  1.])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        beta: float = 1.0,
        bias: bool = False,
        scale: float = 0.1,
        answer: Literal["sign", "mean", "sample"] = "sign",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (("in_features", in_features, 1), ("out_features", out_features, 1)):
            if value < least:
                raise ConfigError(f"BinaryVariationalLinear.{name}: got {value}, expected at least {least}")
        if not 0 < beta < math.inf:
            raise ConfigError(f"BinaryVariationalLinear.beta: got {beta}, expected a finite number above 0")
        if not 0 <= scale < math.inf:
            raise ConfigError(f"BinaryVariationalLinear.scale: got {scale}, expected at least 0")
        if answer not in ANSWERS:
            raise ConfigError(
                f"BinaryVariationalLinear.answer: got {answer!r}{nearest(str(answer), ANSWERS)}"
            )
        self.in_features, self.out_features = in_features, out_features
        self.beta, self.answer, self.generator = beta, answer, generator
        self.field = nn.Parameter(scale * torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def extra_repr(self) -> str:
        """Sizes and settings."""
        return f"{self.in_features}, {self.out_features}, beta={self.beta:g}, answer={self.answer!r}"

    def magnetization(self) -> Tensor:
        """Mean weights `tanh(beta h)`, `[out_features, in_features]`, in [-1, 1]."""
        return torch.tanh(self.beta * self.field)

    @torch.no_grad()
    def binary_weight(self) -> Tensor:
        """Most probable weights, +1 or -1, `[out_features, in_features]`."""
        return torch.where(self.field >= 0, 1.0, -1.0).to(self.field.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs `[..., in_features]` to outputs `[..., out_features]`."""
        if x.shape[-1] != self.in_features:
            raise ShapeError(
                f"BinaryVariationalLinear: inputs {list(x.shape)}, expected {self.in_features} in the last dimension"
            )
        if not self.training and self.answer != "sample":
            weight = self.binary_weight() if self.answer == "sign" else self.magnetization()
            return nn.functional.linear(x, weight / math.sqrt(self.in_features), self.bias)
        mean, variance = preactivation(x, self.magnetization())
        noise = torch.empty_like(mean).normal_(generator=self.generator)
        drawn = mean + (variance + _LEAST_VARIANCE).sqrt() * noise
        return drawn if self.bias is None else drawn + self.bias


def bernoulli_kl(field: Tensor, prior_field: Tensor | float = 0.0, beta: float = 1.0) -> Tensor:
    """Divergence KL(Q || P) in nats of binary weights with one field from those with another, summed over weights.

    `sum_i beta (h_i - p_i) tanh(beta h_i) - log cosh(beta h_i) + log cosh(beta p_i)`, whose gradient is
    `beta^2 (1 - m_i^2) (h_i - p_i)`. The closed form of the gradient is used, so it can be differentiated once; it
    stays exact where `tanh` is rounded to 1.

    Args:
        field: fields `h` of Q.
        prior_field: fields `p` of P, of the same shape, or one for all.
        beta: inverse temperature of both.

    Raises:
        ShapeError: prior fields of another shape.

    >>> round(bernoulli_kl(torch.tensor([0.0, 20.0])).item(), 3)   # one bit known, in nats
    0.693
    """
    prior = torch.as_tensor(prior_field, dtype=field.dtype, device=field.device)
    if prior.dim() and prior.shape != field.shape:
        raise ShapeError(f"bernoulli_kl: prior fields {list(prior.shape)} for fields {list(field.shape)}")
    divergence: Tensor = _Divergence.apply(field, prior, beta)  # type: ignore[no-untyped-call]
    return divergence


class _Divergence(torch.autograd.Function):
    """The divergence; its gradient shares `tanh` with its value."""

    @staticmethod
    def forward(ctx: Any, field: Tensor, prior: Tensor, beta: float) -> Tensor:
        x, p = beta * field, beta * prior
        m, gap = torch.tanh(x), x - p
        # 1 - m^2 = 4 e^(-2|x|) / (1 + e^(-2|x|))^2 keeps its digits where tanh is rounded to 1
        tail = torch.exp(-2 * x.abs())
        ctx.save_for_backward(4 * tail / (1 + tail).square() * gap)
        ctx.beta = beta
        # log cosh x = |x| + log(1 + e^(-2|x|)) - log 2; the last one cancels
        return (gap * m - x.abs() - torch.log1p(tail) + p.abs() + torch.log1p(torch.exp(-2 * p.abs()))).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *errors: Tensor) -> Any:
        (slope,) = ctx.saved_tensors
        return slope * (errors[0] * ctx.beta), None, None


class MeanFieldPrior(Plugin):
    """What a task has taught about binary weights is the prior of the next task.

    Later losses carry `strength * KL(Q || Q_previous) / samples`, `Q_previous` the weights' distribution when the last
    task ended (all weights open before the first), `samples` the task's training samples: with a mean loss that makes
    `strength = 1` the evidence bound, and below 1 a tempered prior. Small strengths, 0.01 to 0.1, served best here: at
    1 a network of this kind learns new tasks badly.

    Args:
        model: with `BinaryVariationalLinear` layers, whose fields are taken.
        strength: weight of the divergence, at least 0.
        samples: training samples of a task; None asks the task, so that a loop of one's own passes it to
            `before_task`.
        fields: names of parameters that are fields, in layers of one's own; None finds those of the layers above.
        beta: inverse temperature of the fields named by `fields`.

    Raises:
        IncompatibleError: the model has no such layer.
        UnknownNameError: a name in `fields` is no parameter.

    >>> net = nn.Sequential(BinaryVariationalLinear(4, 8), nn.Tanh(), BinaryVariationalLinear(8, 2))
    >>> prior = MeanFieldPrior(net, strength=0.1, samples=100)
    >>> with torch.no_grad():
    ...     prior.divergence().item() > 0    # from the open prior
    True
    >>> prior.consolidate()
    >>> prior.divergence().item() < 1e-5
    True
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        strength: float = 0.01,
        samples: int | None = None,
        fields: Iterable[str] | None = None,
        beta: float = 1.0,
    ) -> None:
        if not 0 <= strength < math.inf:
            raise ConfigError(f"MeanFieldPrior.strength: got {strength}, expected at least 0")
        if samples is not None and samples < 1:
            raise ConfigError(f"MeanFieldPrior.samples: got {samples}, expected at least 1")
        self.model, self.strength, self.samples = model, strength, samples
        self._given = samples is not None
        self.betas = _betas(model, fields, beta)
        self._prior: dict[str, Tensor] = {}

    def divergence(self) -> Tensor:
        """KL(Q || Q_previous) of all fields in nats, a scalar that can be differentiated once."""
        return torch.stack(
            [
                bernoulli_kl(self.model.get_parameter(name), self._prior.get(name, 0.0), beta)
                for name, beta in self.betas.items()
            ]
        ).sum()

    def before_task(self, task: Task | None = None) -> None:
        """Note how many samples the task has."""
        if not self._given:
            self.samples = _count(task)

    def on_loss(self, loss: Tensor, context: LossContext) -> Tensor:
        """Add the divergence's share."""
        if not self.strength:
            return loss
        if self.samples is None:
            raise ConfigError(
                "MeanFieldPrior: the number of samples is not known; give it, or call before_task(task)"
            )
        return loss + self.divergence() * (self.strength / self.samples)

    def after_task(self, task: Task | None = None) -> None:
        """What is known now is the next task's prior."""
        self.consolidate()

    @torch.no_grad()
    def consolidate(self) -> None:
        """Take the present fields as prior."""
        self._prior = {name: self.model.get_parameter(name).detach().clone() for name in self.betas}

    def state_dict(self) -> dict[str, Any]:
        """The prior's fields, and the samples of the task under way."""
        return {"prior": dict(self._prior), "samples": self.samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._prior = {
            name: value.to(self.model.get_parameter(name)) for name, value in state["prior"].items()
        }
        self.samples = state["samples"]


def _betas(model: nn.Module, fields: Iterable[str] | None, beta: float) -> dict[str, float]:
    """Inverse temperature by the name of each field."""
    if fields is None:
        found = {
            f"{name}.field" if name else "field": layer.beta
            for name, layer in model.named_modules()
            if isinstance(layer, BinaryVariationalLinear)
        }
        if not found:
            raise IncompatibleError(
                "MeanFieldPrior: the model has no BinaryVariationalLinear; name the parameters that are fields"
            )
        return found
    names = dict(model.named_parameters())
    fields = list(fields)
    for name in fields:
        if name not in names:
            raise UnknownNameError(f"MeanFieldPrior.fields: no parameter {name!r}{nearest(name, names)}")
    return dict.fromkeys(fields, beta)


def _count(task: Task | None) -> int:
    samples = getattr(task, "train", None)
    samples = getattr(samples, "dataset", samples)
    try:
        return len(samples)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigError(
            "MeanFieldPrior: the task does not say how many samples it has; give samples"
        ) from None
