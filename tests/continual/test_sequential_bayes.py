from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from neuropil.continual import sequential_bayes_gaussian
from neuropil.errors import ConfigError, EmptyTaskError, NonFiniteError, ShapeError

Tasks = list[tuple[Tensor, Tensor]]


def made(tasks: int = 3, samples: int = 8, parameters: int = 2) -> Tasks:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tasks, samples, parameters, generator=generator, dtype=torch.double)
    return list(zip(x, torch.randn(tasks, samples, generator=generator, dtype=torch.double), strict=True))


PARTS = [("analysis", lambda: partial(sequential_bayes_gaussian, made()))]


def test_the_last_posterior_is_that_of_all_data_at_once() -> None:
    tasks = made(5, 20, 4)
    found = sequential_bayes_gaussian(tasks, noise=0.3, prior_precision=0.7)
    torch.testing.assert_close(found.means[-1], found.batch_mean, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.precisions[-1], found.batch_precision, rtol=1e-9, atol=1e-12)
    backwards = sequential_bayes_gaussian(tasks[::-1], noise=0.3, prior_precision=0.7)
    torch.testing.assert_close(backwards.means[-1], found.means[-1])


def test_it_is_ridge_regression() -> None:
    tasks = made(1, 30, 3)
    found = sequential_bayes_gaussian(tasks, noise=0.5, prior_precision=2.0)
    x, y = tasks[0]
    wide = torch.cat([x / 0.5**0.5, 2.0**0.5 * torch.eye(3, dtype=torch.double)])
    expected = torch.linalg.lstsq(
        wide, torch.cat([y / 0.5**0.5, torch.zeros(3, dtype=torch.double)])[:, None]
    )
    torch.testing.assert_close(found.means[0], expected.solution[:, 0])
    torch.testing.assert_close(found.own_means, found.means)


@pytest.mark.parametrize(("first", "second"), [(100, 100), (900, 100), (10, 990)])
def test_a_small_task_errs_by_the_share_of_the_large_one(first: int, second: int) -> None:
    ones = torch.ones(first + second, 1, dtype=torch.double)
    tasks = [(ones[:first], ones[:first, 0] * 0), (ones[first:], ones[first:, 0] * 5)]
    found = sequential_bayes_gaussian(tasks, prior_precision=1e-9)
    assert float(5 - found.means[-1, 0]) == pytest.approx(5 * first / (first + second), rel=1e-6)
    last, own = found.parameter_errors(torch.tensor([[0.0], [5.0]], dtype=torch.double))
    share = first / (first + second)
    assert last == pytest.approx(25 * (share**2 + (1 - share) ** 2) / 2, rel=1e-6) and own < 1e-12


def test_bad_data_is_refused() -> None:
    (x, y), *_ = made()
    with pytest.raises(EmptyTaskError, match="without samples"):
        sequential_bayes_gaussian([(x, y), (x[:0], y[:0])])
    with pytest.raises(ShapeError, match=r"task 1: inputs \[8, 1\]"):
        sequential_bayes_gaussian([(x, y), (x[:, :1], y)])
    with pytest.raises(NonFiniteError, match="task 0"):
        sequential_bayes_gaussian([(x / 0, y)])
    with pytest.raises(ConfigError, match="noise: got 0"):
        sequential_bayes_gaussian([(x, y)], noise=0)
