"""How sharply the loss bends where training ended: the largest eigenvalue of its Hessian.

Power iteration on the Hessian of a network's loss: LeCun, Simard, Pearlmutter: Automatic learning rate maximization by
on-line estimation of the Hessian's eigenvectors. NIPS 1992. Sharpness and what a network keeps of earlier tasks:
Mirzadeh et al.: Understanding the Role of Training Regimes in Continual Learning. NeurIPS 2020. arXiv:2006.06958
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from neuropil.data.batching import batches
from neuropil.data.task import Samples
from neuropil.errors import ConfigError, NonFiniteError
from neuropil.plotting import canvas
from neuropil.training.allowed import restrict
from neuropil.training.evaluating import evaluating

Vector = dict[str, Tensor]  # by parameter name


@dataclass(frozen=True, eq=False)
class Sharpness:
    """The sharpest direction of a loss, as far as power iteration found it."""

    eigenvalue: float  # curvature along `direction`, loss per squared unit of weight
    residual: float  # |H v - eigenvalue v| / |H v|, 0 for an eigenvector
    trace: tuple[float, ...]  # the curvature found at each iteration
    direction: Vector  # of length 1 over all parameters

    def plot(self) -> Any:
        """Curvature against iterations, as a matplotlib figure."""
        figure, (axes,) = canvas(1, width=5.0)
        axes.plot(range(1, len(self.trace) + 1), self.trace, color="#173f56")
        axes.set(xlabel="iteration", ylabel="curvature", title=f"sharpness {self.eigenvalue:.3g}")
        return figure


def hessian_sharpness(
    model: nn.Module,
    samples: Samples,
    *,
    iterations: int = 20,
    step: float = 1e-3,
    batch_size: int = 500,
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy,
    generator: torch.Generator | None = None,
) -> Sharpness:
    """Largest eigenvalue, by size, of the Hessian of the mean loss over `samples`, by power iteration.

    The Hessian is met only in products with a direction, taken as central differences of gradients, so compiled
    kernels, which have a first derivative and no second, are served. Of a smooth network the eigenvalue is exact but
    for terms of `step` squared. A spiking network has no Hessian; what is found there is how its surrogate gradient
    turns over a step of this length, which needs one long enough that spikes come and go, such as 0.03.

    Args:
        model: `inputs -> logits`, looked at in evaluation mode; it stays as it is.
        samples: pairs whose mean loss is meant.
        iterations: at least 1; each costs two forward and backward passes over the samples.
        step: length of the difference, relative to that of all parameters together, above 0.
        batch_size: samples at a time.
        loss: `(logits, targets) -> scalar`, a mean over samples.
        generator: draws the first direction.

    Raises:
        ConfigError: iterations or step out of range, or nothing to train.
        NonFiniteError: a gradient is NaN or infinite.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> pairs = torch.utils.data.TensorDataset(torch.full((4, 1), 3.0), torch.zeros(4, 1))
    >>> found = hessian_sharpness(net, pairs, loss=functional.mse_loss)   # of (3 w)^2 the second derivative is 18
    >>> round(found.eigenvalue, 2)
    18.0
    """
    if iterations < 1 or not 0 < step < math.inf:
        raise ConfigError(
            f"hessian_sharpness: iterations {iterations}, step {step}; expected at least 1 and above 0"
        )
    own = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if not own:
        raise ConfigError("hessian_sharpness: the model has no parameter that may be trained")
    length = _norm(own) * step or step

    def gradient(sign: float, along: Vector) -> Vector:
        moved = {name: (p + sign * length * along[name]).requires_grad_() for name, p in own.items()}
        return _gradient(model, moved, samples, batch_size, loss)

    v = _unit(_drawn(own, generator))
    trace: list[float] = []
    product, residual = v, 0.0
    with evaluating(model):
        for _ in range(iterations):
            if trace:
                v = _unit(product)
            ahead, behind = gradient(1.0, v), gradient(-1.0, v)
            product = {name: (ahead[name] - behind[name]) / (2 * length) for name in own}
            trace.append(sum(float((product[name] * v[name]).sum()) for name in own))
            size = _norm(product)
            rest = {name: product[name] - trace[-1] * v[name] for name in own}
            residual = _norm(rest) / size if size else 0.0
            if not size:
                break  # flat along here: there is nothing to follow
    return Sharpness(trace[-1], residual, tuple(trace), v)


def _gradient(
    model: nn.Module,
    parameters: Vector,
    samples: Samples,
    batch_size: int,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Vector:
    """Gradient of the mean loss at these parameters."""
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    count = 0
    for batch in batches(samples, batch_size, shuffle=False):
        device = next(iter(parameters.values())).device
        with torch.enable_grad():
            output = functional_call(model, parameters, (batch.inputs.to(device),))
            value = loss(restrict(output, batch.classes), batch.targets.to(device))
            found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                total[name] += gradient * len(batch.targets)
        count += len(batch.targets)
    for name, gradient in total.items():
        if not bool(gradient.div_(count).isfinite().all()):
            raise NonFiniteError(f"hessian_sharpness: the gradient of {name!r} is NaN or infinite")
    return total


def _drawn(like: Vector, generator: torch.Generator | None) -> Vector:
    return {
        name: torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device)
        for name, p in like.items()
    }


def _norm(vector: Vector) -> float:
    return math.sqrt(sum(float(value.double().square().sum()) for value in vector.values()))


def _unit(vector: Vector) -> Vector:
    size = _norm(vector) or 1.0
    return {name: value / size for name, value in vector.items()}
