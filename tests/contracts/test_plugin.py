"""What every plugin keeps: it acts on anybody's loop and model, and leaves no more behind than it says."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from neuropil.continual import EWC, Replay
from neuropil.data.task import Batch
from neuropil.errors import IncompatibleError
from neuropil.training import Plugin, Trainer, gradients_of, read_checkpoint, save_checkpoint
from tests.contracts.parts import Make, parts
from tests.training.worlds import (
    BATCH,
    CLASSES,
    FEATURES,
    MODELS,
    by_hand,
    mlp,
    one_step,
    same,
    sgd,
    stream,
    weights,
)

every_plugin = pytest.mark.parametrize("make", parts("plugin"))
on_every_model = pytest.mark.parametrize("network", MODELS, ids=lambda network: network.__name__)
Network = Callable[[], nn.Module]


def equal(a: Any, b: Any) -> bool:
    left, right = tree_leaves(a), tree_leaves(b)
    return len(left) == len(right) and all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(left, right, strict=True)
    )


def trainer(model: nn.Module, plugins: list[Plugin], **settings: Any) -> Trainer:
    return Trainer(model, sgd(model), plugins=plugins, batch_size=BATCH, progress=False, **settings)


@every_plugin
@on_every_model
def test_called_by_hand_it_does_what_it_does_in_the_trainer(make: Make, network: Network) -> None:
    in_trainer, in_loop = network(), network()
    trainer(in_trainer, [make()(in_trainer)]).fit(stream())
    by_hand(in_loop, [make()(in_loop)], stream())
    assert same(weights(in_trainer), weights(in_loop))


@every_plugin
@on_every_model
def test_it_lets_the_first_task_be_learned(make: Make, network: Network) -> None:
    model = network()
    first = stream(1)
    judge = trainer(model, [make()(model)], epochs=20)
    assert judge.fit(first).average_accuracy > 0.8


@every_plugin
@on_every_model
def test_on_gradients_is_pure(make: Make, network: Network) -> None:
    model = network()
    plugin = make()(model)
    by_hand(model, [plugin], stream(), stop=4)  # into the second task, where there is something to protect
    model.zero_grad()
    model(torch.rand(5, FEATURES)).square().sum().backward()
    gradients = gradients_of(model)
    before = {name: value.clone() for name, value in gradients.items()}
    state = copy.deepcopy(plugin.state_dict())
    first, second = plugin.on_gradients(gradients), plugin.on_gradients(gradients)
    assert same(gradients, before)
    assert same(first, second)
    assert first.keys() <= before.keys()
    assert equal(plugin.state_dict(), state)


@every_plugin
@on_every_model
@pytest.mark.parametrize("stop", [2, 5])
def test_saved_and_read_it_goes_on_to_the_same_bits(
    make: Make, network: Network, stop: int, tmp_path: Path
) -> None:
    whole = network()
    by_hand(whole, [make()(whole)], stream())

    model = network()
    plugin = make()(model)
    by_hand(model, [plugin], stream(), stop=stop)
    path = save_checkpoint(tmp_path, stop, {"model": weights(model), "plugin": plugin.state_dict()})
    saved = read_checkpoint(path)
    resumed = network()
    fresh = make()(resumed)
    fresh.before_fit(resumed, sgd(resumed))
    fresh.load_state_dict(saved["plugin"])
    resumed.load_state_dict(saved["model"])
    resumed.train()
    by_hand(resumed, [fresh], stream(), skip=stop, fit_begins=False)
    assert same(weights(resumed), weights(whole))


@every_plugin
@on_every_model
def test_same_seed_same_bits_and_the_process_random_state_stays(make: Make, network: Network) -> None:
    results = []
    for process_seed in (1, 2):
        model = network()
        plugin = make()(model)
        torch.manual_seed(process_seed)
        state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
        by_hand(model, [plugin], stream())
        assert torch.equal(state[0], torch.get_rng_state())
        assert np.array_equal(state[1], np.random.get_state()[1])  # noqa: NPY002
        assert state[2] == random.getstate()
        results.append((weights(model), plugin.state_dict()))
    assert equal(results[0], results[1])


@every_plugin
@on_every_model
@pytest.mark.parametrize("order", [1, -1], ids=["first", "last"])
def test_it_works_beside_others(make: Make, network: Network, order: int) -> None:
    results = []
    for _ in range(2):
        model = network()
        others = [
            Replay(per_class=2, generator=torch.Generator().manual_seed(1)),
            EWC(model, strength=1.0, samples=8, generator=torch.Generator().manual_seed(2)),
        ]
        try:
            by_hand(model, [make()(model), *others][::order], stream())
        except IncompatibleError as refusal:  # it may ask for a place behind the others
            assert order == 1 and len(str(refusal).splitlines()) == 1
            return
        assert all(value.isfinite().all() for value in weights(model).values())
        assert len(others[0].buffer) == 3 * 2 * CLASSES and others[1].penalty() > 0
        results.append(weights(model))
    assert same(*results)


@every_plugin
@on_every_model
def test_a_copy_of_the_model_is_another_model(make: Make, network: Network) -> None:
    model = network()
    keys = list(model.state_dict())
    plugin = make()(model)
    by_hand(model, [plugin], stream(), stop=5)
    assert list(model.state_dict()) == keys
    before, state = weights(model), copy.deepcopy(plugin.state_dict())
    asks = [p.requires_grad for p in model.parameters()]
    gradients = {name: value.clone() for name, value in gradients_of(model).items()}

    twin = copy.deepcopy(model)
    one_step(twin, sgd(twin), [], Batch(torch.rand(8, FEATURES), torch.arange(8) % CLASSES))

    assert not same(weights(twin), before)
    assert same(weights(model), before)
    assert same(gradients_of(model), gradients)
    assert [p.requires_grad for p in model.parameters()] == asks
    assert equal(plugin.state_dict(), state)


@every_plugin
@on_every_model
def test_looking_at_the_model_changes_nothing(make: Make, network: Network) -> None:
    model = network()
    plugin = make()(model)
    by_hand(model, [plugin], stream(), stop=5)
    before, state = weights(model), copy.deepcopy(plugin.state_dict())
    plugin.before_eval()
    model.eval()
    model(torch.rand(8, FEATURES)).sum().backward()
    model.train()
    with torch.no_grad():
        if not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()):
            model(torch.rand(8, FEATURES))
    assert same(weights(model), before)
    assert equal(plugin.state_dict(), state)


@every_plugin
@on_every_model
def test_it_detaches_where_it_attaches(make: Make, network: Network) -> None:
    model = network()
    plugin = make()(model)
    by_hand(model, [plugin], stream(2))
    if hasattr(plugin, "detach"):
        plugin.detach()
        assert all(p.requires_grad for p in model.parameters())
    for layer in model.modules():
        assert not layer._forward_hooks and not layer._forward_pre_hooks and not layer._backward_hooks


@every_plugin
@on_every_model
def test_double_precision_is_kept(make: Make, network: Network) -> None:
    model = network().double()
    plugin = make()(model)
    tasks = [copy.copy(task) for task in stream(2)]
    for task in tasks:
        task.train.tensors = (task.train.tensors[0].double(), task.train.tensors[1])
    by_hand(model, [plugin], tasks)
    assert all(value.dtype == torch.double for value in weights(model).values() if value.is_floating_point())
    assert all(
        leaf.dtype == torch.double
        for leaf in tree_leaves(plugin.state_dict())
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    )


@every_plugin
def test_inside_fabric_it_does_the_same(make: Make) -> None:
    fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cpu", devices=1)
    plain, wrapped = mlp(), mlp()
    trainer(plain, [make()(plain)]).fit(stream())
    trainer(wrapped, [make()(wrapped)], fabric=fabric).fit(stream())
    assert same(weights(plain), weights(wrapped))
