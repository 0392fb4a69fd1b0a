"""What every parametrization keeps, whatever it makes of a weight.

`make()` returns `(layer, parametrization)` for `layer.weight`.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tests.contracts.parts import Make, parts

every_parametrization = pytest.mark.parametrize("make", parts("parametrization"))


def worn(make: Make, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A layer that wears the parametrization, always the same for a seed."""
    torch.manual_seed(seed)
    layer, parametrization = make()
    layer.to(dtype)
    parametrization.to(dtype)
    parametrize.register_parametrization(layer, "weight", parametrization)
    return layer


def raws(layer: Any) -> list[nn.Parameter]:
    return list(layer.parametrizations.weight.parameters())


def objective(weight: Tensor) -> Tensor:
    """A smooth function in which each entry counts differently."""
    target = torch.linspace(-1, 1, weight.numel(), dtype=weight.dtype).view(weight.shape)
    return ((weight - target) ** 2).sum()


@every_parametrization
def test_weight_keeps_shape_and_dtype(make: Make) -> None:
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        bare, _ = make()
        layer = worn(make, dtype=dtype)
        assert layer.weight.shape == bare.weight.shape
        assert layer.weight.dtype == dtype and layer.weight.isfinite().all()


@every_parametrization
def test_a_weight_of_its_own_is_taken_over_as_it_is(make: Make) -> None:
    """What the parametrization gives lies in its set: assigned again, it stays."""
    layer = worn(make, dtype=torch.float64)
    if not hasattr(layer.parametrizations.weight[0], "right_inverse"):
        pytest.skip("cannot be assigned to")
    weight = layer.weight.detach().clone()
    layer.weight = weight
    torch.testing.assert_close(layer.weight, weight)


@every_parametrization
def test_reading_twice_gives_the_same_and_changes_nothing(make: Make) -> None:
    layer = worn(make)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    assert torch.equal(layer.weight, layer.weight)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@every_parametrization
def test_gradients_reach_what_is_learned(make: Make) -> None:
    layer = worn(make)
    objective(layer.weight).backward()
    gradients = [raw.grad for raw in raws(layer) if raw.requires_grad]
    assert gradients, "nothing of it learns"
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().sum() > 0 for gradient in gradients if gradient is not None)


@every_parametrization
def test_learning_goes_downhill(make: Make) -> None:
    layer = worn(make)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.02)
    first = objective(layer.weight).item()
    for _ in range(30):
        optimizer.zero_grad()
        objective(layer.weight).backward()
        optimizer.step()
    assert objective(layer.weight).item() < first


@every_parametrization
def test_saved_state_restores_the_weight(make: Make) -> None:
    layer, twin = worn(make), worn(make, seed=5)
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(twin.weight, layer.weight)
    clone = copy.deepcopy(layer)
    assert torch.equal(clone.weight, layer.weight)
    own = {value.data_ptr() for value in layer.state_dict().values() if value.numel()}
    assert not own & {value.data_ptr() for value in clone.state_dict().values() if value.numel()}


@every_parametrization
def test_taken_off_it_leaves_its_weight(make: Make) -> None:
    layer = worn(make)
    weight = layer.weight.detach().clone()
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    assert torch.equal(layer.weight, weight) and not parametrize.is_parametrized(layer)


@every_parametrization
def test_same_seed_gives_the_same_bits(make: Make) -> None:
    first, second = worn(make), worn(make)
    assert torch.equal(first.weight, second.weight)
    for layer in (first, second):
        objective(layer.weight).backward()
    for one, two in zip(raws(first), raws(second), strict=True):
        assert (one.grad is None) == (two.grad is None)
        assert one.grad is None or two.grad is None or torch.equal(one.grad, two.grad)


@every_parametrization
def test_compiled_equals_eager(make: Make) -> None:
    eager, compiled = worn(make), worn(make)
    torch._dynamo.reset()
    weight = torch.compile(lambda: compiled.weight, backend="aot_eager")()
    torch.testing.assert_close(weight, eager.weight)
    objective(weight).backward()
    objective(eager.weight).backward()
    for one, two in zip(raws(compiled), raws(eager), strict=True):
        assert (one.grad is None) == (two.grad is None)
        if one.grad is not None and two.grad is not None:
            torch.testing.assert_close(one.grad, two.grad)


class Shrink(nn.Module):
    """A second parametrization, which every one of the library must bear before or behind itself."""

    def forward(self, raw: Tensor) -> Tensor:
        return 0.5 * raw

    def right_inverse(self, weight: Tensor) -> Tensor:
        return 2 * weight


@every_parametrization
def test_it_stacks_with_another(make: Make) -> None:
    behind = worn(make)
    alone = behind.weight.detach().clone()
    parametrize.register_parametrization(behind, "weight", Shrink())
    assert behind.weight.shape == alone.shape
    objective(behind.weight).backward()
    torch.manual_seed(0)
    layer, parametrization = make()
    parametrize.register_parametrization(layer, "weight", Shrink())
    parametrize.register_parametrization(layer, "weight", parametrization)
    objective(layer.weight).backward()
    for stacked in (behind, layer):
        found = [raw.grad for raw in raws(stacked) if raw.grad is not None]
        assert found and all(gradient.isfinite().all() for gradient in found)


@every_parametrization
def test_layers_that_wear_it_leave_each_other_alone(make: Make) -> None:
    first, second = worn(make), worn(make, seed=5)
    model = nn.ModuleDict({"first": first, "second": second})
    before = {name: value.clone() for name, value in model["second"].state_dict().items()}
    objective(first.weight).backward()
    with torch.no_grad():
        for raw in raws(first):
            raw -= 0.1
    assert all(parameter.grad is None for parameter in second.parameters())
    assert all(torch.equal(value, before[name]) for name, value in second.state_dict().items())


@every_parametrization
def test_the_layer_still_works(make: Make) -> None:
    layer: Any = worn(make)
    if isinstance(layer, nn.Linear):
        x = torch.randn(3, layer.in_features)
    elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        x = torch.randn(3, layer.in_channels, *[9] * len(layer.kernel_size))
    else:
        pytest.skip(f"not known how to feed a {type(layer).__name__}")
    layer(x).sum().backward()
    assert any(raw.grad is not None for raw in raws(layer))
