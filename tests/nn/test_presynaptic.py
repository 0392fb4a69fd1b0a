from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from neuropil.errors import IncompatibleError, UnknownNameError
from neuropil.nn import FeedbackLinear, TracedConv2d, TracedLinear
from neuropil.nn.presynaptic import error_rows, fan_in, observe, rows, synapses, weight_gradient

CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"stride": 2},
    {"stride": (2, 1), "padding": (1, 0)},
    {"padding": 2, "dilation": 2},
    {"padding": "same"},
    {"padding": "valid"},
    {"padding": 1, "padding_mode": "reflect"},
    {"padding": "same", "padding_mode": "circular"},
]


def layers() -> list[Any]:
    convolutions = [
        pytest.param(lambda s=settings: nn.Conv2d(3, 4, (3, 2), **s), (2, 3, 7, 6), id=f"conv {settings}")
        for settings in CONVOLUTIONS
    ]
    return [
        pytest.param(lambda: nn.Linear(5, 4), (6, 5), id="linear"),
        pytest.param(lambda: nn.Linear(5, 4), (2, 3, 5), id="linear in time"),
        pytest.param(lambda: nn.Linear(5, 4), (5,), id="linear, one sample"),
        pytest.param(lambda: nn.Conv2d(3, 4, 2), (3, 5, 4), id="conv, one sample"),
        *convolutions,
    ]


every_layer = pytest.mark.parametrize(("make", "shape"), layers())


@every_layer
def test_weight_gradient_is_error_rows_times_activity_rows(make: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer, x = make().double(), torch.randn(shape, dtype=torch.double)
    y = layer(x)
    error = torch.randn_like(y)
    y.backward(error)
    activity, errors = rows(layer, x), error_rows(layer, error)
    assert activity.shape[1] == fan_in(layer)
    torch.testing.assert_close((errors.mT @ activity).view_as(layer.weight), layer.weight.grad)
    flat = activity @ layer.weight.flatten(1).mT + layer.bias
    torch.testing.assert_close(flat, error_rows(layer, y))


@every_layer
def test_a_given_factor_takes_the_activitys_place(make: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer, x = make().double(), torch.randn(shape, dtype=torch.double).requires_grad_()
    plain = layer(x)
    error = torch.randn_like(plain)
    grad_x, grad_bias = torch.autograd.grad(plain, (x, layer.bias), error)
    factor = torch.randn_like(rows(layer, x.detach()))
    layer.weight.requires_grad_(False)
    y = layer(x)
    layer.weight.requires_grad_(True)
    y = weight_gradient(layer, y, factor)
    assert torch.equal(y, plain)
    y.backward(error)
    torch.testing.assert_close(
        layer.weight.grad, (error_rows(layer, error).mT @ factor).view_as(layer.weight)
    )
    torch.testing.assert_close(x.grad, grad_x)
    torch.testing.assert_close(layer.bias.grad, grad_bias)


def test_a_sequence_of_images_is_rows_too() -> None:
    layer, x = TracedConv2d(2, 3, 2, decay=0.5), torch.rand(4, 5, 2, 3, 3)
    assert torch.equal(rows(layer, x), rows(layer, x.flatten(0, 1)))
    y, _ = layer(x)
    assert torch.equal(error_rows(layer, y), error_rows(layer, y.flatten(0, 1)))


@pytest.mark.parametrize("layer", [nn.Linear(4, 3), FeedbackLinear(4, 3)], ids=["plain", "feedback"])
def test_what_is_seen_is_the_input(layer: nn.Module) -> None:
    seen: list[Tensor] = []
    handle = observe(layer, seen.append)
    x = torch.rand(2, 4, requires_grad=True)
    layer(x)
    assert torch.equal(seen[0], x) and not seen[0].requires_grad
    copy.deepcopy(layer)(x)  # a copy is another layer
    assert len(seen) == 1
    handle.remove()
    layer(x)
    assert len(seen) == 1


def test_what_is_seen_is_the_trace_where_a_layer_learns_from_one() -> None:
    layer, x, seen = TracedLinear(4, 3, decay=0.5), torch.rand(3, 2, 4), []
    observe(layer, seen.append)
    layer(x)
    torch.testing.assert_close(seen[0][2], x[2] + 0.5 * x[1] + 0.25 * x[0])


def test_synapses_are_found_by_name_and_excluded_by_it() -> None:
    model = nn.ModuleDict({"a": nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "b": nn.Conv2d(1, 1, 1)})
    assert list(synapses(model)) == ["a.0", "b"]
    assert list(synapses(model, exclude=iter(["b"]))) == ["a.0"]
    with pytest.raises(UnknownNameError, match=r"layer 'a.1'; did you mean 'a.0'"):
        synapses(model, exclude=["a.1"])
    assert list(synapses(nn.Linear(2, 2))) == [""]


def test_gradients_of_another_form_are_refused_in_one_line() -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    tied[1].weight = tied[0].weight
    refused = {
        "grouped": nn.Sequential(nn.Conv2d(4, 4, 1, groups=2), nn.Flatten(), nn.Linear(4, 1)),
        "parametrized": nn.Sequential(parametrizations.spectral_norm(nn.Linear(3, 3)), nn.Linear(3, 1)),
        "shares its weight": tied,
    }
    for word, model in refused.items():
        with pytest.raises(IncompatibleError, match=word) as caught:
            synapses(model)
        assert "\n" not in str(caught.value)
    assert list(synapses(refused["grouped"], exclude=["0"])) == ["2"]
    assert list(synapses(tied, exclude=["0", "1"])) == ["2"]
    with pytest.raises(IncompatibleError, match="shares its weight"):
        synapses(tied, exclude=["1"])  # excluded or not, it learns the protected weight
