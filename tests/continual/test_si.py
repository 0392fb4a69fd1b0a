from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from neuropil.continual import SI
from neuropil.errors import ConfigError
from neuropil.training import LossContext, transform_gradients
from tests.continual.springs import seeded
from tests.training.worlds import mlp


def si() -> Any:
    return lambda model: SI(model, strength=3.0, damping=0.05)


PARTS = [("plugin", si)]


def test_two_tasks_of_linear_regression_are_the_published_equations_in_numpy() -> None:
    """Weights step by step against literal equations: path integral, stiffness, and the penalty in the second task."""
    rate, c, damping = 0.05, 0.6, 0.1
    generator = seeded()
    data = [
        (
            torch.randn(20, 3, generator=generator).double(),
            torch.randn(20, 2, generator=generator).double(),
        )
        for _ in range(2)
    ]
    net = nn.Linear(3, 2, bias=False).double()
    w = net.weight.detach().numpy().copy()
    plugin, optimizer = SI(net, strength=2 * c, damping=damping), torch.optim.SGD(net.parameters(), lr=rate)
    omega_all, anchor = np.zeros_like(w), w.copy()
    for task, (x, y) in enumerate(data):
        plugin.before_task()
        path, start = np.zeros_like(w), w.copy()
        for _ in range(7):
            loss = plugin.on_loss((net(x) - y).square().mean(), LossContext(None, None))
            optimizer.zero_grad()
            loss.backward()
            transform_gradients(net, [plugin])
            optimizer.step()
            plugin.after_step()
            g = 2 * (w @ x.numpy().T - y.numpy().T) @ x.numpy() / y.numel()
            step = -rate * (g + 2 * c * omega_all * (w - anchor))
            path -= g * step
            w = w + step
            np.testing.assert_allclose(net.weight.detach().numpy(), w, rtol=1e-10, atol=1e-12)
        plugin.after_task()
        omega_all = omega_all + np.maximum(path, 0) / ((w - start) ** 2 + damping)
        anchor = w.copy()
        found = plugin.state_dict()
        np.testing.assert_allclose(found["stiffness"]["weight"], omega_all, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found["anchor"]["weight"], anchor)
        assert task == 1 or (omega_all > 0).any()


def test_small_steps_account_for_the_whole_fall_of_the_loss() -> None:
    """The path integrals of all weights together are what the loss has fallen by."""
    net = mlp().double()
    generator = seeded()
    x, y = torch.rand(30, 12, generator=generator).double(), torch.arange(30) % 4
    plugin, optimizer = SI(net, strength=1.0), torch.optim.SGD(net.parameters(), lr=0.01)
    plugin.before_task()
    first = last = 0.0
    for step in range(120):
        loss = nn.functional.cross_entropy(net(x), y)
        first, last = (loss.item() if step == 0 else first), loss.item()
        if step == 119:
            break
        optimizer.zero_grad()
        loss.backward()
        transform_gradients(net, [plugin])
        optimizer.step()
        plugin.after_step()
    account = sum(float(path.sum()) for path in plugin.state_dict()["path"].values())
    assert first - last > 0.01
    assert account == pytest.approx(first - last, rel=0.02)


def test_weights_that_did_not_help_are_not_held() -> None:
    net = nn.Linear(2, 1, bias=False)
    plugin = SI(net)
    plugin.before_task()
    plugin.on_gradients({"weight": torch.tensor([[1.0, 1.0]])})
    with torch.no_grad():
        net.weight.add_(torch.tensor([[-0.1, 0.1]]))
    plugin.after_step()
    plugin.after_task()
    stiffness = plugin.state_dict()["stiffness"]["weight"][0]
    assert stiffness[0] > 0 and stiffness[1] == 0


def test_no_damping_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"SI.damping: got 0"):
        SI(mlp(), damping=0)
