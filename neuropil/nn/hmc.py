"""Hamiltonian Monte Carlo with the diagnostics that tell whether to believe it.

Neal: MCMC using Hamiltonian dynamics. Handbook of Markov Chain Monte Carlo, 2011. arXiv:1206.1901
Step size by dual averaging: Hoffman, Gelman: The No-U-Turn Sampler. JMLR 15, 2014. arXiv:1111.4246
Split R-hat and effective sample size: Gelman et al.: Bayesian Data Analysis, third edition, section 11.4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuropil.errors import ConfigError, NonFiniteError, ShapeError
from neuropil.plotting import canvas

if TYPE_CHECKING:
    from jaxtyping import Float

LogDensity = Callable[[Tensor], Tensor]  # [chains, parameters] -> [chains]


@dataclass(frozen=True, eq=False)
class HMCSamples:
    """Samples of a density, and how far they can be trusted."""

    samples: Float[Tensor, "chains samples parameters"]
    log_density: Float[Tensor, "chains samples"]
    acceptance: float  # mean probability of accepting a proposal, in [0, 1]; 0.6 to 0.9 is healthy
    step_size: float  # of the leapfrog integrator, after warm-up
    r_hat: Float[
        Tensor, " parameters"
    ]  # split R-hat: near 1 when all chains tell the same; below 1.05 is healthy
    effective_samples: Float[Tensor, " parameters"]  # independent samples that tell as much about the mean
    divergences: int  # proposals whose energy was off by more than 1000: the step is too long somewhere

    @property
    def together(self) -> Float[Tensor, "all parameters"]:
        """Samples of all chains, one after the other."""
        return self.samples.flatten(0, 1)

    def plot(self, parameters: int = 4) -> Any:
        """Traces of the first parameters, one line a chain, as a matplotlib figure."""
        figure, axes = canvas(min(parameters, self.samples.shape[2]))
        for index, panel in enumerate(axes):
            panel.plot(self.samples[:, :, index].mT.numpy(), linewidth=0.6)
            panel.set(title=f"parameter {index}, R-hat {float(self.r_hat[index]):.2f}", xlabel="sample")
        return figure


def hmc_sample(
    log_density: LogDensity,
    initial: Float[Tensor, "chains parameters"],
    *,
    samples: int = 500,
    warmup: int = 500,
    leapfrog_steps: int = 20,
    step_size: float = 0.1,
    target_acceptance: float = 0.8,
    generator: torch.Generator | None = None,
) -> HMCSamples:
    """Draw from a density known up to a constant, several chains side by side.

    Args:
        log_density: `[chains, parameters] -> [chains]`, differentiable.
        initial: where the chains start; at least 2 chains, well apart, so that R-hat can tell.
        samples: kept per chain, at least 4.
        warmup: discarded per chain; the step size is fitted during it.
        leapfrog_steps: steps of a proposal's path.
        step_size: to begin with, more than 0. Each proposal's is drawn within a tenth of it, so that no path closes.
        target_acceptance: what the step size is fitted to, in (0, 1).
        generator: of momenta and acceptance; torch's own state without one.

    Raises:
        ShapeError: `initial` is not `[chains, parameters]` with 2 chains or more.
        NonFiniteError: the density of a starting point is NaN or infinite.

    >>> draw = hmc_sample(lambda x: -0.5 * x.square().sum(1), torch.zeros(4, 2), samples=300, warmup=200,
    ...                   generator=torch.Generator().manual_seed(0))
    >>> bool((draw.r_hat < 1.05).all()), bool(0.6 < draw.acceptance < 0.95)
    (True, True)
    """
    _check(initial, samples, warmup, leapfrog_steps, step_size, target_acceptance)
    at = _Point.of(log_density, initial.detach().clone())
    if not bool(at.value.isfinite().all()):
        raise NonFiniteError("hmc_sample: log density of a starting point is not finite; start elsewhere")
    fitted = _StepSize(step_size, target_acceptance)
    kept, values, accepted, divergences = [], [], [], 0
    for iteration in range(warmup + samples):
        warming = iteration < warmup
        size = fitted.now if warming else fitted.averaged if warmup else step_size
        jitter = 0.9 + 0.2 * float(torch.rand((), generator=generator, dtype=torch.double))
        momentum = torch.randn(at.place.shape, generator=generator, dtype=at.place.dtype)
        proposal, error = _proposal(log_density, at, momentum, size * jitter, leapfrog_steps)
        chance = error.clamp_max(0).exp()
        accept = torch.rand(len(chance), generator=generator, dtype=chance.dtype) < chance
        at = at.moved(proposal, accept)
        if warming:
            fitted.update(float(chance.mean()))
            continue
        divergences += int((error < -1000).sum())
        accepted.append(float(chance.mean()))
        kept.append(at.place)
        values.append(at.value)
    drawn = torch.stack(kept, 1)
    return HMCSamples(
        samples=drawn,
        log_density=torch.stack(values, 1),
        acceptance=math.fsum(accepted) / len(accepted),
        step_size=fitted.averaged if warmup else step_size,
        r_hat=split_r_hat(drawn),
        effective_samples=effective_sample_size(drawn),
        divergences=divergences,
    )


@dataclass(frozen=True, eq=False)
class _Point:
    """Where the chains are, with the log density and its gradient there."""

    place: Tensor
    value: Tensor
    gradient: Tensor

    @staticmethod
    def of(log_density: LogDensity, place: Tensor) -> _Point:
        place = place.detach().requires_grad_(True)
        with torch.enable_grad():
            value = log_density(place)
            (gradient,) = torch.autograd.grad(value.sum(), place)
        return _Point(place.detach(), value.detach(), gradient)

    def moved(self, to: _Point, accept: Tensor) -> _Point:
        rows = accept[:, None]
        return _Point(
            torch.where(rows, to.place, self.place),
            torch.where(accept, to.value, self.value),
            torch.where(rows, to.gradient, self.gradient),
        )


def _proposal(
    log_density: LogDensity, start: _Point, momentum: Tensor, size: float, steps: int
) -> tuple[_Point, Tensor]:
    """End of a leapfrog path, and by how much its energy is too low: the log probability of accepting it."""
    before = start.value - 0.5 * momentum.square().sum(1)
    at, p = start, momentum
    for _ in range(steps):
        p = p + 0.5 * size * at.gradient
        at = _Point.of(log_density, at.place + size * p)
        p = p + 0.5 * size * at.gradient
    error = at.value - 0.5 * p.square().sum(1) - before
    return at, error.nan_to_num(nan=-math.inf, posinf=-math.inf)


class _StepSize:
    """Dual averaging towards the wanted acceptance."""

    def __init__(self, start: float, target: float) -> None:
        self.target, self._centre = target, math.log(10 * start)
        self._count, self._shortfall = 0, 0.0
        self.now, self.averaged = start, start
        self._log_average = 0.0

    def update(self, acceptance: float) -> None:
        self._count += 1
        n = self._count
        self._shortfall += (self.target - acceptance - self._shortfall) / (n + 10)
        log_now = self._centre - math.sqrt(n) / 0.05 * self._shortfall
        weight = n**-0.75
        self._log_average = weight * log_now + (1 - weight) * self._log_average
        self.now, self.averaged = math.exp(log_now), math.exp(self._log_average)


def split_r_hat(samples: Float[Tensor, "chains samples parameters"]) -> Float[Tensor, " parameters"]:
    """Scale by which the spread of all chains together exceeds that of half a chain; near 1 when they agree.

    >>> split_r_hat(torch.tensor([[0.0, 1, 0, 1], [5, 6, 5, 6]])[..., None]) > 1.5
    tensor([True])
    """
    half = samples.shape[1] // 2
    parts = torch.cat([samples[:, :half], samples[:, -half:]]).double()
    within = parts.var(1).mean(0)
    total = (half - 1) / half * within + parts.mean(1).var(0)
    return (total / within).sqrt().to(samples.dtype)


def effective_sample_size(
    samples: Float[Tensor, "chains samples parameters"],
) -> Float[Tensor, " parameters"]:
    """How many independent samples would tell as much about the mean, from the chains' autocorrelation.

    >>> bool((effective_sample_size(torch.randn(4, 500, 1)) > 1000).all())
    True
    """
    chains, n, _ = samples.shape
    centred = samples.double() - samples.double().mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, n=2 * n, dim=1).abs().square()
    covariance = torch.fft.irfft(spectrum, n=2 * n, dim=1)[:, :n] / n
    within = covariance[:, 0].mean(0) * n / (n - 1)
    total = (n - 1) / n * within + samples.double().mean(1).var(0)
    correlation = 1 - (within - covariance.mean(0)) / total
    # Geyer: sums of neighbouring correlations are positive and fall.
    pairs: Tensor = correlation[: n - n % 2].unflatten(0, (-1, 2)).sum(1)
    positive = (pairs > 0).cumprod(0)
    falling = torch.cummin(pairs, 0).values * positive
    time = (2 * falling.sum(0) - 1).clamp_min(1 / math.log10(max(chains * n, 10)))
    size: Tensor = (chains * n / time).to(samples.dtype)
    return size


def _check(initial: Tensor, samples: int, warmup: int, steps: int, step_size: float, target: float) -> None:
    if initial.dim() != 2 or initial.shape[0] < 2 or not initial.is_floating_point():
        raise ShapeError(
            f"hmc_sample: initial is {initial.dtype} {list(initial.shape)}, expected floats [chains, parameters], "
            "2 chains or more"
        )
    rules = (
        ("samples", samples, samples >= 4, "at least 4"),
        ("warmup", warmup, warmup >= 0, "at least 0"),
        ("leapfrog_steps", steps, steps >= 1, "at least 1"),
        ("step_size", step_size, step_size > 0, "more than 0"),
        ("target_acceptance", target, 0 < target < 1, "between 0 and 1"),
    )
    for name, value, fine, expected in rules:
        if not fine:
            raise ConfigError(f"hmc_sample.{name}: got {value}, expected {expected}")
