"""Two tasks in a row for a binary perceptron: what theory predicts, and what a message-passing simulation finds.

The learner is sequential Bayes in mean-field form: its posterior of task one, one field a weight, is the prior of task
two. Li, Huang, Huang, arXiv:2212.02846, treat the same problem by a Franz-Parisi potential; the equations here are
those of approximate message passing's state evolution for it, derived anew. Binary perceptron: Krauth and Mezard 1989;
message passing: Donoho, Maleki, Montanari 2009.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuropil.errors import ConfigError, DataError, ShapeError
from neuropil.nn.finite import check_finite
from neuropil.plotting import canvas

_LEAST_VARIANCE = 1e-5  # of an output, so that certainty does not overflow
_FAR = 10.0  # standard deviations
_LEAST = 1e-9  # of overlaps and variances, which otherwise divide by zero where a task is known perfectly


@dataclass(frozen=True)
class TwoTaskPerceptron:
    """Overlaps and generalization errors of learning two tasks in a row, at the fixed point of the theory.

    Errors are chances in [0, 1] that the sign of the mean weights answers otherwise than a task's teacher.
    """

    first_error: float  # of task one after task one
    second_error: float  # of task two after task two
    first_error_after_second: float
    first_overlap: float  # after task one: of mean weights with teacher one, and with themselves
    second_overlap: float  # after task two, with teacher two
    kept_overlap: float  # after task two, with teacher one
    norm: float  # after task two, of mean weights with themselves
    first_path: tuple[float, ...]  # error of task one, iteration by iteration while it is learned
    second_path: tuple[float, ...]  # error of task two while it is learned
    kept_path: tuple[float, ...]  # error of task one meanwhile

    def plot(self) -> Any:
        """Errors along the iterations of learning, task one, then task two."""
        figure, (axes,) = canvas(1)
        start = len(self.first_path)
        second = range(start, start + len(self.second_path))
        axes.plot(range(start), self.first_path, color="tab:blue", label="task one")
        axes.plot(second, self.kept_path, color="tab:blue", linestyle="--", label="task one, meanwhile")
        axes.plot(second, self.second_path, color="tab:orange", label="task two")
        axes.set_xlabel("iteration")
        axes.set_ylabel("generalization error")
        axes.set_ylim(0, 0.55)
        axes.legend()
        return figure


class PerceptronPosterior(NamedTuple):
    """What message passing knows of the weights."""

    mean: Tensor  # [weights], in [-1, 1]
    field: Tensor  # [weights]; the prior field of a next task
    iterations: int
    converged: bool


def perceptron_amp(
    inputs: Tensor,
    labels: Tensor,
    prior_field: Tensor | None = None,
    *,
    damping: float = 0.0,
    iterations: int = 200,
    tolerance: float = 1e-5,
) -> PerceptronPosterior:
    """Posterior of binary weights `w` from labels `sign(w . x / sqrt(n))`, by approximate message passing.

    Exact in the limit of many weights for inputs of independent entries with mean 0 and variance 1. Near `samples =
    1.25 n`, where the posterior becomes certain all at once, it needs damping.

    Args:
        inputs: `[samples, n]`.
        labels: `[samples]`, +1 or -1.
        prior_field: `[n]`, weight i is +1 with probability `1 / (1 + exp(-2 prior_field_i))`; zeros by default. The
            `field` of an earlier task's posterior makes that task the prior.
        damping: share of the previous iteration that is kept, in [0, 1).
        iterations: at most this many.
        tolerance: ends when the mean weights' root mean square change falls below.

    Raises:
        ShapeError: labels or prior of another length.
        DataError: labels other than +1 and -1.

    >>> g = torch.Generator().manual_seed(0)
    >>> teacher = torch.randn(400, generator=g).sign()
    >>> x = torch.randn(1000, 400, generator=g)
    >>> posterior = perceptron_amp(x, (x @ teacher).sign())
    >>> bool((posterior.mean.sign() == teacher).float().mean() > 0.98)
    True
    """
    labels, prior = _checked(inputs, labels, prior_field)
    if not 0 <= damping < 1:
        raise ConfigError(f"perceptron_amp.damping: got {damping}, expected a share in [0, 1)")
    if iterations < 1:
        raise ConfigError(f"perceptron_amp.iterations: got {iterations}, expected at least 1")
    rows = inputs / math.sqrt(inputs.shape[1])
    squares = rows.square()
    field, mean = prior, torch.tanh(prior)
    pull = torch.zeros_like(labels)
    for step in range(iterations):
        variance = (squares @ (1 - mean.square())).clamp_min(_LEAST_VARIANCE)
        output = rows @ mean - variance * pull
        fresh = labels * _hazard(labels * output / variance.sqrt()) / variance.sqrt()
        pull = fresh if step == 0 else (1 - damping) * fresh + damping * pull
        precision = squares.mT @ (pull * (pull + output / variance)).clamp_min(0)
        field = prior + rows.mT @ pull + precision * mean
        before, mean = mean, (1 - damping) * torch.tanh(field) + damping * mean
        if float((mean - before).square().mean().sqrt()) < tolerance:
            return PerceptronPosterior(mean, field, step + 1, True)
    return PerceptronPosterior(mean, field, iterations, False)


def two_task_perceptron_state_evolution(
    alpha1: float, alpha2: float, r0: float, *, iterations: int = 400, tolerance: float = 1e-9
) -> TwoTaskPerceptron:
    """Errors of a binary perceptron that learns two tasks in a row, in the limit of many weights.

    Args:
        alpha1: samples per weight of task one, at least 0.
        alpha2: samples per weight of task two, at least 0.
        r0: correlation of the two teachers' weights, in [-1, 1]; negative teachers contradict each other.
        iterations: of each task's equations, at most.
        tolerance: change of the overlaps below which they end.

    Raises:
        ConfigError: a value out of range.

    >>> theory = two_task_perceptron_state_evolution(0.8, 0.8, 0.0)
    >>> round(theory.first_error, 3), round(theory.first_error_after_second, 3)
    (0.264, 0.395)
    """
    for name, value, low, high in (
        ("alpha1", alpha1, 0, math.inf), ("alpha2", alpha2, 0, math.inf), ("r0", r0, -1, 1),
    ):  # fmt: skip
        if not low <= value <= high or math.isinf(value):
            expected = "a correlation in [-1, 1]" if name == "r0" else "a finite number of at least 0"
            raise ConfigError(f"two_task_perceptron_state_evolution.{name}: got {value}, expected {expected}")
    first = _settle(alpha1, (0.0, 0.0), ((1.0, 1.0, 1.0),), iterations, tolerance)
    pull, spread = first.drive
    # By symmetry teacher one is +1 everywhere; teacher two agrees with it in a share (1 + r0) / 2 of the weights.
    groups = ((0.5 * (1 + r0), 1.0, 1.0), (0.5 * (1 - r0), 1.0, -1.0))
    second = _settle(alpha2, (pull, spread), groups, iterations, tolerance)
    return TwoTaskPerceptron(
        first_error=_error(first.new, first.norm),
        second_error=_error(second.new, second.norm),
        first_error_after_second=_error(second.old, second.norm),
        first_overlap=first.new,
        second_overlap=second.new,
        kept_overlap=second.old,
        norm=second.norm,
        first_path=tuple(_error(new, norm) for new, _, norm in first.path),
        second_path=tuple(_error(new, norm) for new, _, norm in second.path),
        kept_path=tuple(_error(old, norm) for _, old, norm in second.path),
    )


class _FixedPoint(NamedTuple):
    new: float  # overlap with the teacher that is learned
    old: float  # with the teacher before
    norm: float
    drive: tuple[
        float, float
    ]  # mean pull towards the teacher, and variance, of the fields that the task adds
    path: tuple[tuple[float, float, float], ...]


def _settle(
    alpha: float,
    prior: tuple[float, float],
    groups: tuple[tuple[float, float, float], ...],
    iterations: int,
    tolerance: float,
) -> _FixedPoint:
    """Iterate one task's equations; `groups` are (share of weights, old teacher, new teacher)."""
    drive = (0.0, 0.0)
    state = _overlaps(prior, drive, groups)
    path = [state]
    for _ in range(iterations):
        drive = _drive(alpha, state[0], state[2])
        before, state = state, _overlaps(prior, drive, groups)
        path.append(state)
        if max(abs(a - b) for a, b in zip(state, before, strict=True)) < tolerance:
            break
    return _FixedPoint(*state, drive, tuple(path))


def _overlaps(
    prior: tuple[float, float], drive: tuple[float, float], groups: tuple[tuple[float, float, float], ...]
) -> tuple[float, float, float]:
    """Overlaps of `tanh(field)` with the new teacher, the old one and itself, fields Gaussian around both pulls."""
    z, density = _gaussian_grid()
    spread = math.sqrt(max(0.0, prior[1] + drive[1]))
    new = old = norm = 0.0
    for share, first, second in groups:
        m = torch.tanh(spread * z + prior[0] * first + drive[0] * second)
        mean = float(m @ density)
        new, old = new + share * second * mean, old + share * first * mean
        norm += share * float(m.square() @ density)
    return new, old, norm


def _drive(alpha: float, overlap: float, norm: float) -> tuple[float, float]:
    """Pull towards the teacher and variance of the fields that `alpha` samples per weight add."""
    z, density = _gaussian_grid()
    norm = min(max(norm, _LEAST), 1 - _LEAST)
    variance = 1 - norm
    unknown = math.sqrt(max(_LEAST, 1 - overlap**2 / norm))  # of the teacher's output, given the learner's
    w = math.sqrt(norm) * z
    slope = overlap / (norm * unknown)
    answer = _hazard(w / math.sqrt(variance)) / math.sqrt(variance)
    towards = 2 * alpha / unknown * float((answer * torch.exp(-0.5 * (slope * w).square())) @ density)
    spread = 2 * alpha * float((torch.special.ndtr(slope * w) * answer.square()) @ density)
    return towards / math.sqrt(2 * math.pi), spread


def _hazard(x: Tensor) -> Tensor:
    """`phi(x) / Phi(x)` of the normal density and distribution; far below zero by its asymptotic series."""
    near = x.clamp_min(-_FAR)
    far = x.clamp_max(-_FAR).neg()
    ratio = torch.exp(-0.5 * near.square() - 0.5 * math.log(2 * math.pi) - torch.special.log_ndtr(near))
    return torch.where(x > -_FAR, ratio, far + 1 / far - 2 / far**3)


def _gaussian_grid(points: int = 4001, end: float = 9.0) -> tuple[Tensor, Tensor]:
    """Points and weights of the trapezoidal rule for a mean over a standard normal, exact to rounding if smooth."""
    z = torch.linspace(-end, end, points, dtype=torch.double)
    density = torch.exp(-0.5 * z.square())
    return z, density / density.sum()


def _error(overlap: float, norm: float) -> float:
    """Chance that two Gaussian outputs of this overlap differ in sign."""
    return 0.5 if norm <= 0 else math.acos(min(1.0, max(-1.0, overlap / math.sqrt(norm)))) / math.pi


def _checked(inputs: Tensor, labels: Tensor, prior_field: Tensor | None) -> tuple[Tensor, Tensor]:
    if inputs.dim() != 2 or not inputs.is_floating_point():
        raise ShapeError(
            f"perceptron_amp: got inputs {list(inputs.shape)}, expected numbers [samples, weights]"
        )
    if labels.shape != inputs.shape[:1]:
        raise ShapeError(
            f"perceptron_amp: {list(labels.shape)} labels for {len(inputs)} samples, expected one each"
        )
    check_finite(inputs, "perceptron_amp: inputs")
    labels = labels.to(inputs.dtype)
    if not bool((labels.abs() == 1).all()):
        raise DataError("perceptron_amp: labels must be +1 or -1")
    if prior_field is None:
        return labels, inputs.new_zeros(inputs.shape[1])
    if prior_field.shape != inputs.shape[1:]:
        raise ShapeError(
            f"perceptron_amp: prior field {list(prior_field.shape)} for {inputs.shape[1]} weights"
        )
    check_finite(prior_field, "perceptron_amp: prior field")
    return labels, prior_field.to(inputs.dtype)
