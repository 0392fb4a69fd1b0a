from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuropil.continual import EWC, FastSlow
from neuropil.data.batching import batches
from neuropil.errors import ConfigError, UnknownNameError
from tests.training.worlds import by_hand, mlp, one_step, parameters, same, sgd, stream, task, weights


def fast_slow(**settings: Any) -> Any:
    return lambda model: FastSlow(model, samples=8, generator=torch.Generator().manual_seed(7), **settings)


PARTS = [
    ("plugin", partial(fast_slow, strength=5.0)),
    ("plugin", partial(fast_slow, strength=0.0, every=2, step=0.5)),
]


def shift(model: nn.Module, by: float) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by)


def ones(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.ones_like(p) for name, p in model.named_parameters()}


def close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name])


def test_slow_weights_are_the_moving_average_of_the_fast_ones() -> None:
    model = mlp().double()
    plugin = FastSlow(model, step=0.3)
    assert not plugin.slow
    plugin.consolidate(ones(model))
    expected = parameters(model)
    assert same(dict(plugin.slow), expected)
    for by in (0.5, -1.0, 0.2):
        plugin.before_task()
        close(parameters(model), expected)  # fast weights start at the slow ones
        shift(model, by)
        plugin.consolidate(ones(model))
        expected = {name: value + 0.3 * by for name, value in expected.items()}
        close(dict(plugin.slow), expected)


def test_the_penalty_is_anchored_at_the_slow_weights_with_the_importance_of_all_tasks() -> None:
    model = mlp().double()
    plugin = FastSlow(model, step=0.25, strength=6.0)
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for seed in range(3):
        torch.manual_seed(seed)
        fisher = {name: torch.rand_like(p) for name, p in model.named_parameters()}
        plugin.consolidate(fisher)
        total = {name: total[name] + fisher[name] for name in total}
        shift(model, 0.1)
    slow = dict(plugin.slow)
    found = plugin.penalty()
    expected = 3.0 * sum((total[n] * (p - slow[n]) ** 2).sum() for n, p in model.named_parameters())
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        *(torch.autograd.grad(v, list(model.parameters())) for v in (found, expected)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_a_whole_step_without_a_penalty_is_plain_training() -> None:
    followed, plain = mlp(), mlp()
    by_hand(followed, [FastSlow(followed, step=1.0, strength=0.0)], stream())
    by_hand(plain, [], stream())
    assert same(weights(followed), weights(plain))


def test_one_whole_step_and_a_penalty_is_elastic_consolidation_at_the_latest_weights() -> None:
    """With step 1 only the anchor differs from EWC, and after one task not even that."""
    ours, theirs = mlp(), mlp()
    by_hand(ours, [fast_slow(strength=5.0, step=1.0)(ours)], stream(2))
    ewc = EWC(theirs, strength=5.0, samples=8, generator=torch.Generator().manual_seed(7))
    by_hand(theirs, [ewc], stream(2))
    close(weights(ours), weights(theirs))


def test_the_model_has_slow_weights_inside_and_fast_ones_again() -> None:
    model = mlp()
    plugin = FastSlow(model, step=0.5)
    plugin.consolidate(ones(model))
    shift(model, 1.0)
    plugin.consolidate(ones(model))
    fast = weights(model)
    with plugin.slow_weights() as slow:
        assert slow is model
        close(weights(model), {name: value - 0.5 for name, value in fast.items()})
    assert same(weights(model), fast)
    with pytest.raises(RuntimeError), plugin.slow_weights():
        raise RuntimeError
    assert same(weights(model), fast)


def test_every_few_steps_it_is_lookahead() -> None:
    """Zhang et al. 2019, written out: k fast steps, slow <- slow + a (fast - slow), fast <- slow."""
    model, twin = mlp(), mlp()
    plugin = FastSlow(model, step=0.4, strength=0.0, every=2)
    plugin.consolidate(ones(model))
    plugin.before_task()
    slow = parameters(twin)
    optimizers = sgd(model), sgd(twin)
    for number, batch in enumerate(batches(task().train, 8), start=1):
        one_step(model, optimizers[0], [plugin], batch)
        one_step(twin, optimizers[1], [], batch)
        if number % 2 == 0:
            fast = parameters(twin)
            slow = {name: slow[name] + 0.4 * (fast[name] - slow[name]) for name in slow}
            twin.load_state_dict(slow)
    close(weights(model), weights(twin))


def test_what_is_excluded_has_fast_weights_alone() -> None:
    model = mlp()
    plugin = FastSlow(model, exclude=["leave", "enter.bias"])
    assert plugin.held == ("enter.weight", "inner.weight", "inner.bias")
    plugin.after_task(task())
    assert set(plugin.slow) == set(plugin.held)
    shift(model, 1.0)
    moved = weights(model)
    plugin.before_task()
    assert torch.equal(model.leave.weight, moved["leave.weight"])
    assert torch.equal(model.enter.weight, plugin.slow["enter.weight"])


def test_restored_slow_weights_are_its_own() -> None:
    model = mlp()
    plugin, other = FastSlow(model), FastSlow(model)
    plugin.consolidate(ones(model))
    other.load_state_dict(plugin.state_dict())
    shift(model, 1.0)
    other.consolidate(ones(model))
    assert not torch.equal(plugin.slow["enter.bias"], other.slow["enter.bias"])


def test_bad_settings_are_refused() -> None:
    for settings, line in (
        ({"step": 0.0}, "step: got 0.0"), ({"step": 1.5}, "step"), ({"every": 0}, "every: got 0"),
        ({"strength": -1.0}, "FastSlow.strength"), ({"exclude": ["enter", "inner", "leave"]}, "leaves no parameter"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=line):
            FastSlow(mlp(), **settings)
    with pytest.raises(UnknownNameError, match="no part 'leav'; did you mean 'leave'"):
        FastSlow(mlp(), exclude=["leav"])
