from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neuropil.continual import CLASSP
from neuropil.errors import ConfigError, IncompatibleError
from neuropil.training import Trainer
from tests.training.worlds import BATCH, mlp, stream


def classp(lr: float = 0.05, **settings: Any) -> Any:
    return lambda parameters: CLASSP(parameters, lr=lr, **settings)


PARTS = [
    ("optimizer", classp),
    ("optimizer", partial(classp, quantile=0.3)),
    ("optimizer", partial(classp, scale_updates=True, eps=0.5, lr=0.3)),
    ("optimizer", partial(classp, power=2.0, scale_updates=True, eps=0.1, lr=0.2)),
    ("optimizer", partial(classp, power=1.5, scale_updates=True, eps=0.3, lr=0.2, usage_decay=0.05)),
    ("optimizer", partial(classp, rule="tensor", scale_updates=True, eps=0.5, lr=0.3)),
]


def step_with(optimizer: CLASSP, weight: Tensor, gradient: Tensor) -> None:
    weight.grad = gradient.clone()
    optimizer.step()


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_literal_equations_weight_by_weight(power: float, scale: bool, decay: float) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5, 4, dtype=torch.double))
    optimizer = CLASSP(
        [weight], lr=0.1, threshold=0.4, power=power, eps=0.02, scale_updates=scale, usage_decay=decay
    )
    w, usage = weight.detach().numpy().copy(), np.zeros((5, 4))
    for _ in range(6):
        gradient = torch.randn(5, 4, dtype=torch.double)
        step_with(optimizer, weight, gradient)
        g = gradient.numpy()
        usage *= 1 - decay
        for i, j in np.ndindex(5, 4):
            if g[i, j] ** 2 > 0.4:
                usage[i, j] += abs(g[i, j]) ** power
                w[i, j] -= 0.1 * g[i, j] / ((0.02 + usage[i, j]) ** (1 / power) if scale else 1.0)
    np.testing.assert_allclose(weight.detach().numpy(), w, rtol=1e-12)
    np.testing.assert_allclose(optimizer.state[weight]["usage"].numpy(), usage, rtol=1e-12)


def test_power_two_without_threshold_is_adagrad() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(7, dtype=torch.double)) for _ in range(2))
    mine = CLASSP([ours], lr=0.3, power=2.0, eps=1e-12, scale_updates=True)
    adagrad = torch.optim.Adagrad([theirs], lr=0.3, eps=0.0)
    for _ in range(5):
        gradient = torch.randn(7, dtype=torch.double)
        step_with(mine, ours, gradient)
        theirs.grad = gradient
        adagrad.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_unscaled_without_threshold_is_sgd() -> None:
    ours, theirs = mlp(), mlp()
    for model, optimizer in (
        (ours, CLASSP(ours.parameters(), lr=0.1)),
        (theirs, torch.optim.SGD(theirs.parameters(), lr=0.1)),
    ):
        Trainer(model, optimizer, batch_size=BATCH, progress=False).fit(stream(2))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.0, 0.95), seed=st.integers(0, 1000))
def test_the_quantile_lets_its_share_pass(share: float, seed: int) -> None:
    weight = nn.Parameter(torch.zeros(2000))
    optimizer = CLASSP([weight], lr=1.0, quantile=share)
    gradient = torch.randn(2000, generator=torch.Generator().manual_seed(seed))
    step_with(optimizer, weight, gradient)
    passed = weight.detach() != 0
    assert float(passed.float().mean()) == pytest.approx(1 - share, abs=0.002)
    assert gradient[passed].abs().min() >= gradient[~passed].abs().max() if 0 < passed.sum() < 2000 else True


def test_the_quantile_is_of_the_group_and_estimated_anew_after_refresh_steps() -> None:
    small, large = nn.Parameter(torch.zeros(100)), nn.Parameter(torch.zeros(100))
    optimizer = CLASSP([small, large], lr=1.0, quantile=0.5, refresh=2)
    for scale, passes in ((1.0, False), (100.0, True), (100.0, False)):
        before = small.detach().clone()
        large.grad = torch.linspace(2, 3, 100) * scale
        step_with(optimizer, small, torch.linspace(0.5, 1, 100) * scale)
        assert bool((small.detach() != before).any()) == passes
    assert optimizer.param_groups[0]["steps"] == 3


def test_used_weights_move_less_than_unused_ones() -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimizer = CLASSP([weight], lr=0.1, eps=0.5)
    for _ in range(10):
        step_with(optimizer, weight, torch.tensor([1.0, 0.0]))
    optimizer.protect(lr=0.2)
    before = weight.detach().clone()
    step_with(optimizer, weight, torch.tensor([1.0, 1.0]))
    moved = before - weight.detach()
    torch.testing.assert_close(moved, torch.tensor([0.2 / 11.5, 0.2 / 1.5]))


def test_protect_switches_every_group_or_none() -> None:
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = CLASSP([{"params": [a], "quantile": 0.5}, {"params": [b], "threshold": 0.2}], lr=0.1)
    before = [dict(group) for group in optimizer.param_groups]
    with pytest.raises(ConfigError, match=r"no setting 'epss'; did you mean 'eps'"):
        optimizer.protect(epss=0.1)
    with pytest.raises(ConfigError, match=r"CLASSP.eps: got 0, expected above 0"):
        optimizer.protect(eps=0)
    assert [dict(group) for group in optimizer.param_groups] == before
    optimizer.protect(lr=0.01, eps=0.2)
    for group in optimizer.param_groups:
        assert (group["quantile"], group["threshold"], group["scale_updates"]) == (None, 0.0, True)
        assert (group["lr"], group["eps"]) == (0.01, 0.2)


def test_usage_outlives_the_task_in_the_trainer() -> None:
    model = mlp()
    optimizer = CLASSP(model.parameters(), lr=0.05)
    trainer = Trainer(model, optimizer, batch_size=BATCH, progress=False)
    trainer.fit(stream(1))
    first = {p: optimizer.state[p]["usage"].clone() for p in model.parameters()}
    trainer.fit(stream(2))
    for p, before in first.items():
        assert (optimizer.state[p]["usage"] >= before).all() and bool(before.any())


def test_the_released_rule_takes_a_tensor_whole_and_drops_the_power() -> None:
    used, idle = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    optimizer = CLASSP([used, idle], lr=1.0, threshold=0.5, power=2.0, rule="tensor")
    gradient = torch.tensor([0.01, 0.0, -2.0])  # squared, only the last one is above the threshold
    idle.grad = torch.zeros(3)
    step_with(optimizer, used, gradient)
    torch.testing.assert_close(used.detach(), -gradient)
    torch.testing.assert_close(optimizer.state[used]["usage"], gradient.abs())  # not its square
    assert idle not in optimizer.state


def test_what_the_first_task_used_moves_less_in_the_second() -> None:
    ratios = []
    for protect in (False, True):
        model = mlp()
        optimizer = CLASSP(model.parameters(), lr=0.1)
        trainer = Trainer(model, optimizer, batch_size=BATCH, epochs=10, progress=False)
        first, second = stream(2)
        trainer.fit([first])
        usage = torch.cat([optimizer.state[p]["usage"].flatten() for p in model.parameters()])
        before = nn.utils.parameters_to_vector(model.parameters()).detach()
        if protect:
            optimizer.protect(lr=0.2, eps=0.5)
        trainer.fit([second])
        assert trainer.evaluate(second, "train") > 0.9
        moved = (nn.utils.parameters_to_vector(model.parameters()).detach() - before).abs()
        much = usage > usage.median()
        ratios.append(float(moved[much].mean() / moved[~much].mean()))
    assert ratios[1] < 0.6 * ratios[0]


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"lr": -0.1}, r"CLASSP.lr: got -0.1, expected at least 0"),
        ({"lr": float("inf")}, r"CLASSP.lr: got inf"),
        ({"threshold": -1.0}, r"CLASSP.threshold: got -1.0"),
        ({"quantile": 1.0}, r"CLASSP.quantile: got 1.0, expected a share in \[0, 1\)"),
        ({"power": 0.0}, r"CLASSP.power: got 0.0, expected above 0"),
        ({"eps": 0.0}, r"CLASSP.eps: got 0.0, expected above 0"),
        ({"refresh": 0}, r"CLASSP.refresh: got 0"),
        ({"usage_decay": 1.0}, r"CLASSP.usage_decay: got 1.0"),
        ({"threshold": 0.1, "quantile": 0.5}, r"give one of them"),
        ({"rule": "tensors"}, r"CLASSP.rule: got 'tensors'; did you mean 'tensor'"),
    ],
)
def test_bad_settings_are_refused(wrong: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        CLASSP(mlp().parameters(), **wrong)


def test_a_refused_group_is_not_kept() -> None:
    optimizer = CLASSP(mlp().parameters(), lr=0.1)
    with pytest.raises(IncompatibleError, match="complex"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2, dtype=torch.complex64))]})
    assert len(optimizer.param_groups) == 1
