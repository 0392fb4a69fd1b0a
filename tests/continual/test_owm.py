from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neuropil.continual import OWM
from neuropil.continual.owm import extend_projector
from neuropil.errors import ConfigError, IncompatibleError
from neuropil.nn.presynaptic import rows
from neuropil.training import transform_gradients
from tests.continual.springs import seeded
from tests.training.worlds import loss_on, mlp, practise, sgd, stream


def owm(average: int = 4) -> Any:
    return lambda model: OWM(model, damping=0.1, samples=24, average=average, generator=seeded())


PARTS = [("plugin", owm), ("plugin", partial(owm, average=1))]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.floats(1e-3, 10), st.integers(0, 99))
def test_blocks_of_any_size_give_the_regularised_inverse(
    blocks: list[int], damping: float, seed: int
) -> None:
    x = torch.randn(sum(blocks), 6, generator=seeded(seed)).double()
    projector = torch.eye(6).double()
    for block in x.split(blocks):
        projector = extend_projector(projector, block, damping)
    expected = damping * torch.linalg.inv(damping * torch.eye(6).double() + x.mT @ x)
    torch.testing.assert_close(projector, expected, rtol=1e-6, atol=1e-8)


def test_one_row_is_the_published_recursion() -> None:
    """`k = P x / (alpha + x^T P x)`, `P <- P - k x^T P`."""
    p = torch.eye(5).double()
    for x in torch.randn(4, 5, generator=seeded()).double():
        k = p @ x / (0.3 + x @ p @ x)
        expected = p - torch.outer(k, x @ p)
        p = extend_projector(p, x[None], 0.3)
        torch.testing.assert_close(p, expected)


def test_learning_leaves_answers_to_protected_activity_alone() -> None:
    net = nn.Sequential(nn.Linear(12, 9, bias=False), nn.ReLU(), nn.Linear(9, 3, bias=False)).double()
    plugin, optimizer = OWM(net, damping=1e-9, average=1), torch.optim.SGD(net.parameters(), lr=0.1)
    x = torch.randn(4, 12, generator=seeded()).double()
    before, start = net(x).detach(), net[0].weight.detach().clone()
    plugin.protect(x)
    plugin.before_task()
    for seed in range(5):
        new = torch.randn(30, 12, generator=seeded(seed)).double()
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(new), torch.arange(30) % 3).backward()
        transform_gradients(net, [plugin])
        optimizer.step()
    torch.testing.assert_close(net(x), before, rtol=1e-6, atol=1e-6)
    assert (net[0].weight - start).norm() > 0.01


def test_a_convolution_is_protected_by_its_patches() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, bias=False)).double()
    plugin = OWM(net, damping=0.5, average=1)
    x = torch.randn(2, 2, 4, 4, generator=seeded()).double()
    plugin.protect(x)
    patches = rows(net[0], x)
    expected = 0.5 * torch.linalg.inv(0.5 * torch.eye(18).double() + patches.mT @ patches)
    torch.testing.assert_close(plugin.projectors["0"], expected)


def test_samples_are_averaged_as_many_at_a_time() -> None:
    net = nn.Sequential(nn.Linear(3, 2)).double()
    plugin = OWM(net, damping=0.5, average=4)
    x = torch.randn(10, 3, generator=seeded()).double()
    plugin.protect(x)
    means = torch.stack([part.mean(0) for part in x.split(4)])
    expected = 0.5 * torch.linalg.inv(0.5 * torch.eye(3).double() + means.mT @ means)
    torch.testing.assert_close(plugin.projectors["0"], expected)


def test_it_holds_an_earlier_task() -> None:
    first, second = stream(2)
    forgotten = []
    for protects in (False, True):
        model = mlp()
        plugin = OWM(model, damping=0.1, average=1, generator=seeded())
        practise(model, [], first, 8, 0.1)
        learned = loss_on(model, first)
        if protects:
            plugin.after_task(first)
            plugin.before_task(second)
        practise(model, [plugin] if protects else [], second, 8, 0.05)
        forgotten.append(loss_on(model, first) - learned)
    assert forgotten[1] < 0.6 * forgotten[0]


def test_what_cannot_work_is_refused() -> None:
    for bad in ({"damping": 0}, {"average": 0}, {"samples": 0}):
        with pytest.raises(ConfigError, match=f"OWM.{next(iter(bad))}"):
            OWM(mlp(), **bad)
    model = mlp()
    with pytest.raises(IncompatibleError, match="OWM with Adam"):
        OWM(model).before_fit(model, torch.optim.Adam(model.parameters()))
    OWM(model).before_fit(model, sgd(model))
