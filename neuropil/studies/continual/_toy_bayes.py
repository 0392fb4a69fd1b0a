"""Toys on which exact sequential Bayesian inference serves no task well: what ProtoCL's paper begins with."""

from __future__ import annotations

import numpy as np
import torch

from neuropil.continual import sequential_bayes_gaussian


def drifting_means(
    seed: int, *, drift: float, tasks: int = 5, samples: int = 20, repeats: int = 100
) -> dict[str, float]:
    """Estimating a mean that moves from task to task, noise 1: how much worse the posterior of all tasks is.

    `parameter_ratio` is the squared error of the sequential posterior mean over that of each task's own fit;
    `predictive_ratio` the same of new samples' squared error; `inexactness` how far it is from the batch posterior.
    """
    generator = torch.Generator().manual_seed(seed)
    errors, inexactness = [], 0.0
    ones = torch.ones(samples, 1, dtype=torch.double)
    for _ in range(repeats):
        true = drift**0.5 * torch.randn(tasks, 1, generator=generator, dtype=torch.double)
        noise = torch.randn(tasks, samples, generator=generator, dtype=torch.double)
        found = sequential_bayes_gaussian(
            [(ones, t + n) for t, n in zip(true, noise, strict=True)], prior_precision=1e-6
        )
        errors.append(found.parameter_errors(true))
        inexactness = max(inexactness, float((found.means[-1] - found.batch_mean).abs().max()))
    sequential, own = (float(np.mean(column)) for column in zip(*errors, strict=True))
    return {
        "parameter_ratio": sequential / own,
        "predictive_ratio": (1 + sequential) / (1 + own),
        "inexactness": inexactness,
    }


def imbalance(seed: int, *, first: int = 200, second: int = 20, shift: float = 2.0) -> float:
    """Error on a second, smaller task over what the closed form `first / (first + second) * shift` says, noise 0.1."""
    generator = torch.Generator().manual_seed(seed)
    tasks = []
    for count, mean in ((first, 0.0), (second, shift)):
        y = mean + 0.1 * torch.randn(count, generator=generator, dtype=torch.double)
        tasks.append((torch.ones(count, 1, dtype=torch.double), y))
    found = sequential_bayes_gaussian(tasks, noise=0.01, prior_precision=1e-6)
    return float((shift - found.means[-1, 0]) / (first / (first + second) * shift))
