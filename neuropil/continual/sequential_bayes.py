"""What exact sequential Bayesian inference does when tasks differ: it is right about all, and best for none.

Kessler, Cobb, Rudner, Zohren, Roberts: On Sequential Bayesian Inference for Continual Learning. Entropy 25, 2023.
arXiv:2301.01828
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuropil.errors import ConfigError, EmptyTaskError, NonFiniteError, ShapeError
from neuropil.plotting import canvas

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class SequentialPosterior:
    """Posteriors of a linear model's parameters through a sequence of tasks."""

    means: Float[Tensor, "tasks parameters"]  # after each task, its posterior the next one's prior
    precisions: Float[Tensor, "tasks parameters parameters"]
    batch_mean: Float[Tensor, " parameters"]  # of all tasks' data at once
    batch_precision: Float[Tensor, "parameters parameters"]
    own_means: Float[Tensor, "tasks parameters"]  # of each task's data alone

    def parameter_errors(self, true: Float[Tensor, "tasks parameters"]) -> tuple[float, float]:
        """Mean squared error of the last posterior mean for every task, and of each task's own posterior mean."""
        last = (self.means[-1] - true).square().sum(1).mean()
        return float(last), float((self.own_means - true).square().sum(1).mean())

    def plot(self) -> Any:
        """Each parameter's posterior mean through the tasks beside each task's own, as a matplotlib figure."""
        count = min(6, self.means.shape[1])
        figure, axes = canvas(count)
        tasks = range(1, len(self.means) + 1)
        for index, panel in enumerate(axes):
            spread = torch.linalg.inv(self.precisions)[:, index, index].sqrt()
            panel.errorbar(
                tasks, self.means[:, index], 2 * spread, label="sequential posterior, 2 sd", capsize=2
            )
            panel.plot(tasks, self.own_means[:, index], "o", label="the task's own")
            panel.set(title=f"parameter {index}", xlabel="task")
        axes[0].legend(fontsize="small")
        return figure


def sequential_bayes_gaussian(
    tasks: Sequence[tuple[Float[Tensor, "samples parameters"], Float[Tensor, " samples"]]],
    *,
    noise: float = 1.0,
    prior_precision: float = 1.0,
) -> SequentialPosterior:
    """Exact Bayesian linear regression, task after task: `target ~ N(inputs @ w, noise)`, `w ~ N(0, 1 / precision)`.

    With one input that is always 1 it estimates a mean. The posterior after the last task is that of all data at once,
    to rounding: nothing is forgotten, and yet it fits no task when the tasks' parameters differ.

    Args:
        tasks: inputs and targets of each task.
        noise: variance of the targets, more than 0.
        prior_precision: of each parameter before the first task, more than 0.

    Raises:
        EmptyTaskError: there is no task, or one without samples.
        ShapeError: inputs are not `[samples, parameters]`, or not as many as targets.

    >>> ones = torch.ones(1, 1)
    >>> found = sequential_bayes_gaussian([(ones, torch.tensor([3.0])), (ones, torch.tensor([6.0]))])
    >>> found.means.flatten().tolist(), found.own_means.flatten().tolist()
    ([1.5, 3.0], [1.5, 3.0])
    """
    for name, value in (("noise", noise), ("prior_precision", prior_precision)):
        if not value > 0:
            raise ConfigError(f"sequential_bayes_gaussian.{name}: got {value}, expected more than 0")
    if not tasks or any(not len(x) for x, _ in tasks):
        raise EmptyTaskError(
            "sequential_bayes_gaussian: no task, or a task without samples; give at least one"
        )
    width = tasks[0][0].shape[-1]
    for number, (x, y) in enumerate(tasks):
        if x.dim() != 2 or x.shape[1] != width or y.shape != x.shape[:1]:
            raise ShapeError(
                f"sequential_bayes_gaussian, task {number}: inputs {list(x.shape)}, targets {list(y.shape)}; "
                f"expected [samples, {width}] and [samples]"
            )
        if not bool(x.isfinite().all() and y.isfinite().all()):
            raise NonFiniteError(f"sequential_bayes_gaussian, task {number}: NaN or infinity in its data")
    start = prior_precision * torch.eye(width, dtype=tasks[0][0].dtype), tasks[0][0].new_zeros(width)
    precision, mean = start
    means, precisions, own = [], [], []
    for x, y in tasks:
        own.append(_posterior(*start, x, y, noise)[1])
        precision, mean = _posterior(precision, mean, x, y, noise)
        means.append(mean)
        precisions.append(precision)
    together = _posterior(*start, torch.cat([x for x, _ in tasks]), torch.cat([y for _, y in tasks]), noise)
    return SequentialPosterior(
        torch.stack(means), torch.stack(precisions), together[1], together[0], torch.stack(own)
    )


def _posterior(precision: Tensor, mean: Tensor, x: Tensor, y: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Precision and mean after data."""
    x, y = x.detach(), y.detach()
    after = precision + x.mT @ x / noise
    return after, torch.linalg.solve(after, precision @ mean + x.mT @ y / noise)
