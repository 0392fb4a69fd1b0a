from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neuropil.continual import GPM
from neuropil.continual.gpm import extend_basis
from neuropil.errors import ConfigError, SubspaceError, UnknownNameError
from neuropil.nn import LIF, RateReadout, Sequential, TracedLinear
from neuropil.nn.presynaptic import observe, rows
from neuropil.training import Trainer
from tests.training.worlds import CLASSES, FEATURES, MODELS, mlp, sgd, stream


def gpm(**options: Any) -> Any:
    return lambda model: GPM(model, samples=30, generator=torch.Generator().manual_seed(7), **options)


PARTS = [("plugin", gpm), ("plugin", partial(gpm, energy=0.6, energy_step=0.1))]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999), energy=st.floats(0.2, 0.999), known=st.integers(0, 4), count=st.integers(1, 30)
)
def test_basis_is_the_shortest_that_holds_the_energy(
    seed: int, energy: float, known: int, count: int
) -> None:
    torch.manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(16, known).double())[0].mT
    activity = torch.randn(count, 16).double() * torch.logspace(0, -2, 16).double()
    grown = extend_basis(basis, activity, energy=energy)
    assert torch.equal(grown[:known], basis)
    torch.testing.assert_close(grown @ grown.mT, torch.eye(len(grown)).double())

    def held(rows: torch.Tensor) -> float:
        return float((activity @ rows.mT).square().sum() / activity.square().sum())

    assert held(grown) >= energy - 1e-12 or len(grown) == int(0.85 * 16)
    assert len(grown) == known or held(grown[:-1]) < energy
    left = (activity - activity @ basis.mT @ basis).numpy()
    best = np.linalg.svd(left)[2][: len(grown) - known]  # numpy's own decomposition
    np.testing.assert_allclose(np.abs((grown[known:].numpy() * best).sum(1)), 1, atol=1e-6)


def test_activity_that_is_known_already_adds_nothing() -> None:
    torch.manual_seed(0)
    basis = extend_basis(torch.zeros(0, 12), torch.randn(30, 3) @ torch.randn(3, 12), size=10)
    assert len(basis) == 3  # there are no more directions than that
    again = extend_basis(basis, torch.randn(30, 3) @ basis * 100, size=4)
    assert torch.equal(again, basis)
    assert len(extend_basis(basis, torch.zeros(5, 12), energy=0.9)) == 3


def test_single_precision_stays_orthonormal_over_many_tasks() -> None:
    torch.manual_seed(0)
    basis = torch.zeros(0, 100)
    common = torch.randn(40, 100)
    for _ in range(8):
        basis = extend_basis(basis, torch.randn(200, 40) @ common + 1e-3 * torch.randn(200, 100), size=10)
    assert len(basis) == 80
    torch.testing.assert_close(basis @ basis.mT, torch.eye(80), atol=1e-5, rtol=0)


def online_network() -> nn.Module:
    return Sequential(
        nn.Linear(FEATURES, 16), LIF(temporal_gradient=False),
        TracedLinear(16, CLASSES, decay=0.5), RateReadout(), time_steps=4,
    )  # fmt: skip


@pytest.mark.parametrize("network", [*MODELS, online_network])
def test_a_whole_second_task_changes_no_answer_to_protected_activity(network: Any) -> None:
    model = network().double()
    plugin = gpm(energy=0.9)(model)
    tasks = stream(2)
    for task in tasks:
        for split in (task.train, task.test):
            split.tensors = (split.tensors[0].double(), split.tensors[1])
    judge = Trainer(model, sgd(model), plugins=[plugin], batch_size=16, progress=False)
    judge.fit(tasks[:1])
    bases = dict(plugin.bases)
    assert all(0 < len(basis) < basis.shape[1] for basis in bases.values())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    judge.fit(tasks[1:])
    moved = 0.0
    for name, p in model.named_parameters():
        change = (p.detach() - before[name]).flatten(1) if p.dim() > 1 else p.detach() - before[name]
        if name.removesuffix(".weight") in bases:
            moved += float(change.norm())
            assert (change @ bases[name.removesuffix(".weight")].mT).abs().max() < 1e-12
        else:
            assert not change.any()
    assert moved > 0.01


def test_what_is_protected_is_the_activity_of_the_task() -> None:
    model = mlp()
    plugin = GPM(model, energy=1.0)
    x = torch.rand(5, FEATURES)
    seen: list[torch.Tensor] = []
    handle = observe(model.inner, seen.append)
    plugin.protect(x)
    handle.remove()
    activity = rows(model.inner, seen[0])
    basis = plugin.bases["inner"]
    torch.testing.assert_close(activity @ basis.mT @ basis, activity)
    assert len(basis) <= 5 and plugin.tasks_learned == 1
    assert model.training and not any(layer._forward_pre_hooks for layer in model.modules())


def test_energy_rises_with_the_tasks_and_sizes_replace_it() -> None:
    model = mlp()
    rising = GPM(model, energy=0.9, energy_step=0.06)
    amounts = []
    for _ in range(3):
        amounts.append(rising._amount("enter")["energy"])
        rising.protect(torch.rand(4, FEATURES))
    assert amounts == pytest.approx([0.9, 0.96, 1.0])
    fixed = GPM(model, sizes={"enter": (2, 1), "inner": (3, 2), "leave": (1, 0)})
    fixed.protect(torch.rand(9, FEATURES))
    fixed.protect(torch.rand(9, FEATURES))
    assert {name: len(basis) for name, basis in fixed.bases.items()} == {"enter": 3, "inner": 5, "leave": 1}


def test_a_model_that_fails_leaves_no_hook_behind() -> None:
    model = mlp()
    with pytest.raises(RuntimeError):
        GPM(model).protect(torch.rand(5, FEATURES + 1))
    assert model.training and not any(layer._forward_pre_hooks for layer in model.modules())


def test_what_it_refuses() -> None:
    model = mlp()
    for energy in (0.0, 1.1):
        with pytest.raises(ConfigError, match=f"GPM.energy: got {energy}"):
            GPM(model, energy=energy)
    with pytest.raises(UnknownNameError, match="did you mean 'leave'"):
        GPM(model, sizes={"leaf": (1,)})
    with pytest.raises(ConfigError, match="none given for layer 'inner'"):
        GPM(model, sizes={"enter": (1,), "leave": (1,)})
    with pytest.raises(SubspaceError, match="at most 10"):
        GPM(model, sizes={"enter": (11,), "inner": (1,), "leave": (1,)})
    one_task = GPM(model, sizes={"enter": (1,), "inner": (1,), "leave": (1,)})
    with pytest.raises(SubspaceError, match="task 2 of sizes made for 1"):
        Trainer(model, sgd(model), plugins=[one_task], progress=False).fit(stream(2))
