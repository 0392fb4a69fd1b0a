from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from neuropil.continual import AGEM, GEM
from neuropil.continual.gem import nonnegative_minimum
from neuropil.data.task import Batch
from neuropil.errors import ConfigError
from tests.continual.springs import seeded
from tests.training.worlds import FEATURES, mlp, task


def gem() -> Any:
    return lambda model: GEM(model, margin=0.2, per_task=12, batch_size=10, generator=seeded())


PARTS = [("plugin", gem)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(0, 10_000))
def test_the_quadratic_program_is_solved_as_scipy_does(variables: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(9, variables)), random.normal(size=9)
    expected = nnls(a, b)[0]
    np.testing.assert_allclose(nonnegative_minimum(a.T @ a, -a.T @ b), expected, atol=1e-7)


def test_parallel_constraints_are_solved_too() -> None:
    gram = np.ones((3, 3))
    v = nonnegative_minimum(gram, -np.ones(3))
    assert v.min() >= 0 and v.sum() == pytest.approx(1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(0, 1000))
def test_the_step_is_the_nearest_that_raises_no_loss(tasks: int, seed: int) -> None:
    """Optimality conditions: feasible, displaced by a non-negative combination, none where the bound is slack."""
    generator = seeded(seed)
    plugin = GEM(mlp(), margin=0.0)
    draw = lambda: {"w": torch.randn(2, 5, generator=generator).double()}  # noqa: E731
    plugin.references = [draw() for _ in range(tasks)]
    g = draw()
    found = plugin.on_gradients(g)["w"].flatten()
    rows = torch.stack([r["w"].flatten() for r in plugin.references])
    products = rows @ found
    assert (products > -1e-7).all()
    v = torch.linalg.lstsq(rows.mT, (found - g["w"].flatten())[:, None]).solution[:, 0]
    assert (v > -1e-7).all() and (v * products).abs().max() < 1e-6
    torch.testing.assert_close(g["w"].flatten() + v @ rows, found, rtol=1e-6, atol=1e-6)


def test_with_one_task_and_no_margin_it_is_a_gem() -> None:
    for seed in range(6):
        model = mlp()
        plugins = [
            GEM(model, margin=0.0, per_task=12, batch_size=99),
            AGEM(model, per_task=12, batch_size=99),
        ]
        for plugin in plugins:
            plugin.after_task(task(0))
            plugin.buffer.load_state_dict(plugins[0].buffer.state_dict())
            plugin.before_batch(Batch(torch.rand(4, FEATURES), torch.arange(4)))
        gradients = {n: torch.randn(p.shape, generator=seeded(seed)) for n, p in model.named_parameters()}
        one, other = (plugin.on_gradients(gradients) for plugin in plugins)
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def test_every_task_has_its_own_reference() -> None:
    model = mlp()
    plugin = GEM(model, per_task=5, generator=seeded())
    for index in range(3):
        plugin.after_task(task(index))
    plugin.before_batch(Batch(torch.rand(4, FEATURES), torch.arange(4)))
    assert len(plugin.references) == 3
    memory = plugin.buffer.select(plugin.buffer.positions(1))
    torch.nn.functional.cross_entropy(model(memory.inputs), memory.targets).backward()
    torch.testing.assert_close(plugin.references[1]["enter.weight"], model.enter.weight.grad)


def test_a_negative_margin_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"GEM.margin"):
        GEM(mlp(), margin=-0.1)
