from __future__ import annotations

from typing import Any

import torch
from torch import nn

from neuropil.continual import MAS
from tests.continual.springs import seeded
from tests.training.worlds import mlp, task


def mas() -> Any:
    return lambda model: MAS(model, strength=0.5, samples=10, generator=seeded())


PARTS = [("plugin", mas)]


def test_sensitivity_of_a_linear_layer_is_the_closed_form() -> None:
    """`d ||W x + b||^2 / dW = 2 (W x + b) x^T`, its size averaged over samples."""
    net = nn.Linear(3, 4).double()
    x = torch.randn(9, 3, generator=seeded()).double()
    found = MAS(net).sensitivity(x)
    with torch.no_grad():
        y = net(x)
        torch.testing.assert_close(found["weight"], (2 * y[:, :, None] * x[:, None, :]).abs().mean(0))
        torch.testing.assert_close(found["bias"], (2 * y).abs().mean(0))


def test_only_the_tasks_own_answers_count() -> None:
    net = nn.Linear(3, 4)
    found = MAS(net).sensitivity(torch.randn(5, 3, generator=seeded()), (1, 3))
    assert found["weight"][[1, 3]].all() and not found["weight"][[0, 2]].any()


def test_signs_do_not_cancel_between_samples() -> None:
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(1.0)
    assert MAS(net).sensitivity(torch.tensor([[1.0], [-1.0]]))["weight"].item() == 2.0


def test_labels_are_not_needed_and_tasks_add_up() -> None:
    net, now = mlp(), task()
    plugin = MAS(net, samples=48, generator=seeded())
    once = plugin.sensitivity(now.train.tensors[0])
    for _ in range(2):
        plugin.after_task(now)
    for name, stiffness in plugin.state_dict()["stiffness"].items():
        torch.testing.assert_close(stiffness, 2 * once[name])


def test_one_may_say_how_to_predict() -> None:
    net = nn.Linear(2, 1, bias=False)
    plugin = MAS(net, predict=lambda x: 3 * net(x))
    x = torch.randn(4, 2, generator=seeded())
    torch.testing.assert_close(plugin.sensitivity(x)["weight"], 9 * MAS(net).sensitivity(x)["weight"])
