"""What every edit keeps: the model that it is given, every tensor it does not change, and the same bits each time."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.contracts.parts import Make, parts
from tests.training.worlds import FEATURES, same, weights

every_edit = pytest.mark.parametrize("make", parts("edit"))


class Part(NamedTuple):
    edit: Callable[[nn.Module], nn.Module]
    model: nn.Module
    x: Tensor


def fresh(make: Make, seed: int = 0) -> Part:
    torch.manual_seed(seed)
    made = make()
    x = made[2] if len(made) > 2 else torch.rand(8, FEATURES)
    return Part(made[0], made[1], x)


@torch.no_grad()
def answer(model: nn.Module, x: Tensor) -> Tensor:
    """What a model answers in evaluation mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    output = model(x)
    for module, mode in modes:
        module.training = mode
    return output[0] if isinstance(output, tuple) else output


def hooks(model: nn.Module) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()
    )


@every_edit
def test_the_model_given_stays_as_it_is(make: Make) -> None:
    part = fresh(make)
    part.model.train()
    before, output = weights(part.model), answer(part.model, part.x)
    tensors = {name: id(p) for name, p in part.model.named_parameters()}
    modules, attached = [id(m) for m in part.model.modules()], hooks(part.model)
    asks = [p.requires_grad for p in part.model.parameters()]
    edited = part.edit(part.model)
    assert edited is not part.model
    assert same(weights(part.model), before) and torch.equal(answer(part.model, part.x), output)
    assert {name: id(p) for name, p in part.model.named_parameters()} == tensors
    assert [id(m) for m in part.model.modules()] == modules and hooks(part.model) == attached
    assert all(m.training for m in part.model.modules())
    assert [p.requires_grad for p in part.model.parameters()] == asks
    assert all(p.grad is None for p in part.model.parameters())
    assert not {id(m) for m in edited.modules()} & set(
        modules
    )  # what is done to one's modules is not done to the other's


@every_edit
def test_unchanged_tensors_are_shared(make: Make) -> None:
    part = fresh(make)
    edited = part.edit(part.model)
    before, after = part.model.state_dict(), edited.state_dict()
    for name in before.keys() & after.keys():
        if before[name].numel() and torch.equal(before[name], after[name]):
            assert before[name].data_ptr() == after[name].data_ptr(), f"{name} was copied and not changed"


@every_edit
def test_it_does_something(make: Make) -> None:
    part = fresh(make)
    edited = part.edit(part.model)
    first, second = answer(part.model, part.x), answer(edited, part.x)
    assert first.shape != second.shape or not torch.equal(first, second)
    assert second.isfinite().all()


@every_edit
def test_the_same_bits_each_time_and_the_process_random_state_stays(make: Make) -> None:
    results = []
    for process_seed in (1, 2):
        part = fresh(make)
        torch.manual_seed(process_seed)
        state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
        edited = part.edit(part.model)
        assert torch.equal(state[0], torch.get_rng_state())
        assert np.array_equal(state[1], np.random.get_state()[1])  # noqa: NPY002
        assert state[2] == random.getstate()
        results.append((weights(edited), answer(edited, part.x)))
    assert same(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


@every_edit
def test_it_works_on_a_part_of_a_users_own_module(make: Make) -> None:
    part = fresh(make)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = part.model

        def forward(self, x: Tensor) -> Tensor:
            output = self.inner(x)
            return 2 * (output[0] if isinstance(output, tuple) else output)

    own = Own()
    own.inner = part.edit(own.inner)
    assert torch.equal(answer(own, part.x), 2 * answer(own.inner, part.x))
    x = part.x.clone().requires_grad_() if part.x.is_floating_point() else part.x
    own(x).sum().backward()
    assert any(p.grad is not None and p.grad.isfinite().all() for p in own.parameters())


@every_edit
def test_state_goes_round(make: Make) -> None:
    """All that an edit brought is in the state: another edited model takes it over."""
    part, other = fresh(make), fresh(make)
    edited, twin = part.edit(part.model), other.edit(other.model)
    state = {
        name: value + 0.01 if value.is_floating_point() else value.clone()
        for name, value in edited.state_dict().items()
    }
    edited.load_state_dict(state)
    twin.load_state_dict(state)
    assert torch.equal(answer(edited, part.x), answer(twin, part.x))


@every_edit
def test_a_copy_of_the_edited_model_is_another_model(make: Make) -> None:
    part = fresh(make)
    edited = part.edit(part.model)
    twin = copy.deepcopy(edited)
    output = answer(edited, part.x)
    assert torch.equal(answer(twin, part.x), output)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert torch.equal(answer(edited, part.x), output)


@every_edit
def test_double_precision_is_kept(make: Make) -> None:
    part = fresh(make)
    model = part.model.double()
    edited = part.edit(model)
    assert all(
        value.dtype == torch.double for value in edited.state_dict().values() if value.is_floating_point()
    )
    x = part.x.double() if part.x.is_floating_point() else part.x
    assert answer(edited, x).dtype == torch.double


@every_edit
@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_kept(make: Make, training: bool) -> None:
    part = fresh(make)
    part.model.train(training)
    assert part.edit(part.model).training == training
