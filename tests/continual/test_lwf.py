from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from neuropil.continual import LwF
from neuropil.data.task import Batch
from neuropil.errors import ConfigError
from neuropil.training import LossContext
from tests.continual.springs import move, seeded
from tests.training.worlds import FEATURES, loss_on, mlp, practise, same, stream, task, weights


def lwf(temperature: float = 2.0) -> Any:
    return lambda model: LwF(model, strength=0.5, temperature=temperature)


PARTS = [("plugin", lwf), ("plugin", partial(lwf, temperature=1.0))]


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def divergence(old: np.ndarray, new: np.ndarray, classes: list[int], t: float) -> float:
    p, q = softmax(old[:, classes] / t), softmax(new[:, classes] / t)
    return float(t**2 * (p * np.log(p / q)).sum(1).mean())


def before_and_after(model: nn.Module, plugin: LwF, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        old = model(x).numpy()
        move(model)
        return old, model(x).numpy()


def test_with_a_shared_head_one_softmax_runs_over_all_classes_seen() -> None:
    model = mlp().double()
    plugin = LwF(model, strength=0.7, temperature=2.0)
    plugin.after_task(replace(task(0, classes=(2, 0)), classes=None))
    assert plugin.seen == (0, 2)
    x = torch.rand(9, FEATURES, generator=seeded()).double()
    old, new = before_and_after(model, plugin, x)
    context = LossContext(Batch(x, torch.zeros(9).long()), model(x))
    expected = 1.5 + 0.7 * divergence(old, new, [0, 2], 2.0)
    assert plugin.on_loss(torch.tensor(1.5).double(), context).item() == pytest.approx(expected, rel=1e-9)
    plugin.after_task(replace(task(1, classes=(1, 2)), classes=None))
    assert plugin.seen == (0, 1, 2)


def test_with_a_head_per_task_every_earlier_head_is_compared_on_its_own() -> None:
    model = mlp().double()
    plugin = LwF(model, strength=1.0, temperature=3.0)
    for now in (task(0, classes=(0, 1)), task(1, classes=(2, 3))):
        plugin.after_task(now)
    x = torch.rand(9, FEATURES, generator=seeded()).double()
    old, new = before_and_after(model, plugin, x)
    found = plugin.distillation(x, model(x))
    expected = divergence(old, new, [0, 1], 3.0) + divergence(old, new, [2, 3], 3.0)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_the_teacher_is_the_network_of_the_last_task() -> None:
    model = mlp()
    plugin = LwF(model)
    plugin.after_task(task(0))
    move(model)
    plugin.after_task(task(1))
    x = torch.rand(4, FEATURES, generator=seeded())
    assert plugin.distillation(x, model(x)).item() == pytest.approx(0, abs=1e-6)


def test_asking_the_teacher_leaves_the_model_alone() -> None:
    model = nn.Sequential(nn.Linear(FEATURES, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 4))
    plugin = LwF(model)
    plugin.after_task(task(0))
    before, state = weights(model), torch.get_rng_state()
    output = model(torch.rand(6, FEATURES))
    before["1.running_mean"], before["1.running_var"] = (
        model[1].running_mean.clone(),
        model[1].running_var.clone(),
    )
    before["1.num_batches_tracked"] = model[1].num_batches_tracked.clone()
    state = torch.get_rng_state()
    plugin.distillation(torch.rand(6, FEATURES, generator=seeded()), output).backward()
    assert same(weights(model), before) and torch.equal(torch.get_rng_state(), state)
    assert model.training and model[1].training
    assert all(not t.requires_grad for t in plugin.state_dict()["teacher"].values())


def test_old_answers_are_kept() -> None:
    first, second = stream(2)
    moved = []
    for strength in (0.0, 10.0):
        model = mlp()
        plugin = LwF(model, strength=strength)
        practise(model, [], first, 8, 0.1)
        before = model(second.train.tensors[0]).softmax(-1).detach()
        plugin.after_task(first)
        learned = loss_on(model, second)
        practise(model, [plugin], second, 4, 0.05)
        assert loss_on(model, second) < learned
        moved.append((model(second.train.tensors[0]).softmax(-1) - before).abs().mean().item())
    assert moved[1] < 0.6 * moved[0]


@pytest.mark.parametrize("bad", [{"strength": -1}, {"temperature": 0}])
def test_bad_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"LwF.{next(iter(bad))}"):
        LwF(mlp(), **bad)
