from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from neuropil.continual import AGEM, ReservoirBuffer
from neuropil.data.task import Batch
from neuropil.errors import ConfigError
from tests.continual.springs import seeded
from tests.training.worlds import FEATURES, loss_on, mlp, practise, stream, task


def agem() -> Any:
    return lambda model: AGEM(model, per_task=12, batch_size=10, generator=seeded())


PARTS = [("plugin", agem)]


def flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([g.flatten() for g in gradients.values()])


def with_memory(model: nn.Module) -> AGEM:
    plugin = AGEM(model, per_task=12, batch_size=100, generator=seeded())
    plugin.after_task(task(0))
    plugin.before_batch(Batch(torch.rand(4, FEATURES), torch.arange(4)))
    return plugin


def test_the_reference_is_the_gradient_on_the_memory() -> None:
    model = mlp().double()
    plugin = AGEM(model, per_task=12, batch_size=100, generator=seeded())
    now = task(0)
    now.train.tensors = (now.train.tensors[0].double(), now.train.tensors[1])
    plugin.after_task(now)
    plugin.before_batch(Batch(torch.rand(4, FEATURES), torch.arange(4)))
    memory = plugin.buffer.select(torch.arange(12))
    nn.functional.cross_entropy(model(memory.inputs), memory.targets).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(plugin.references[0][name], p.grad)


def test_conflicting_gradients_are_projected_others_pass() -> None:
    model = mlp()
    plugin = with_memory(model)
    r = flat(plugin.references[0])
    for seed in range(8):
        gradients = {n: torch.randn(p.shape, generator=seeded(seed)) for n, p in model.named_parameters()}
        g = flat(gradients)
        found = flat(plugin.on_gradients(gradients))
        expected = g - (g @ r) / (r @ r) * r if g @ r < 0 else g
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert found @ r >= -1e-4


def test_before_there_is_a_memory_nothing_happens() -> None:
    model = mlp()
    plugin = AGEM(model)
    batch = Batch(torch.rand(4, FEATURES), torch.arange(4))
    gradients = {"enter.weight": torch.ones(14, FEATURES)}
    assert plugin.before_batch(batch) is batch
    assert plugin.on_gradients(gradients) is gradients


def test_taking_the_reference_leaves_gradients_alone() -> None:
    model = mlp()
    plugin = AGEM(model, per_task=12)
    plugin.after_task(task(0))
    model(torch.rand(3, FEATURES)).sum().backward()
    before = model.enter.weight.grad.clone()
    plugin.before_batch(Batch(torch.rand(4, FEATURES), torch.arange(4)))
    assert torch.equal(model.enter.weight.grad, before)


def test_it_holds_an_earlier_task() -> None:
    first, second = stream(2)
    lost = []
    for remembers in (False, True):
        model = mlp()
        plugin = AGEM(model, per_task=48, generator=seeded())
        practise(model, [], first, 20, 0.1)
        if remembers:
            plugin.after_task(first)
        practise(model, [plugin], second, 20, 0.1)
        lost.append(loss_on(model, first))
    assert lost[1] < 0.6 * lost[0]


def test_a_buffer_that_is_given_is_used_though_it_is_empty() -> None:
    buffer = ReservoirBuffer(3)
    assert AGEM(mlp(), buffer=buffer).buffer is buffer


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"AGEM.batch_size: got 0"):
        AGEM(mlp(), batch_size=0)
    with pytest.raises(ConfigError, match="a buffer brings its size"):
        AGEM(mlp(), per_task=3, buffer=ReservoirBuffer(3))
