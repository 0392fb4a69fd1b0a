from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from neuropil.errors import ConfigError, IncompatibleError, UnknownNameError
from neuropil.nn import LIF, FeedbackLinear, RateReadout, Sequential, grow_outputs, shared_copy
from tests.training.worlds import FEATURES, MODELS, mlp


def growing(network):
    return lambda model: grow_outputs(model, 2, generator=torch.Generator().manual_seed(0)), network()


PARTS = [("edit", partial(growing, network)) for network in MODELS]


@pytest.mark.parametrize("network", MODELS)
def test_old_outputs_keep_their_bits_and_new_ones_come_after(network) -> None:
    model = network()
    wider = grow_outputs(model, 3)
    model.eval()
    wider.eval()
    x = torch.rand(5, FEATURES)
    assert wider(x).shape == (5, 7)
    torch.testing.assert_close(wider(x)[:, :4], model(x))
    before, after = model.state_dict(), wider.state_dict()
    grown = [name for name in before if before[name].shape != after[name].shape]
    assert grown and all(torch.equal(before[name], after[name][:4]) for name in grown)


def test_new_rows_are_drawn_as_torch_draws_them() -> None:
    layer = nn.Linear(100, 2)
    wider = grow_outputs(nn.Sequential(layer), 3000, generator=torch.Generator().manual_seed(0))[0]
    torch.manual_seed(0)
    reference = nn.Linear(100, 3000)
    for new, torchs in ((wider.weight[2:], reference.weight), (wider.bias[2:], reference.bias)):
        new = new.detach()
        assert float(new.abs().max()) <= 0.1
        assert float(new.std()) == pytest.approx(float(torchs.detach().std()), rel=0.05)
    assert wider.out_features == 3002 and layer.out_features == 2


def test_a_layer_by_its_name() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer, self.aside = nn.Linear(3, 2), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.answer(x) + self.aside(x)

    model = Two()
    assert grow_outputs(model, 1, layer="answer")(torch.rand(4, 3)).shape == (4, 3)
    assert grow_outputs(model, 1).aside.out_features == 2  # the last one registered
    with pytest.raises(UnknownNameError, match="'answer'"):
        grow_outputs(model, 1, layer="anwser")


def test_convolutions_spiking_heads_and_fixed_feedback_grow() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False))
    assert grow_outputs(net, 2)(torch.rand(1, 1, 5, 5)).shape == (1, 4, 3, 3)
    spikes = Sequential(nn.Linear(3, 4), LIF(), FeedbackLinear(4, 2), RateReadout(), time_steps=3)
    wider = grow_outputs(spikes, 1)
    wider(torch.rand(2, 3)).sum().backward()
    assert all(p.grad is not None for p in wider.parameters())


def test_what_is_frozen_stays_frozen() -> None:
    model = mlp()
    model.leave.bias.requires_grad_(False)
    wider = grow_outputs(model, 1)
    assert not wider.leave.bias.requires_grad and wider.leave.weight.requires_grad


def test_what_cannot_grow_is_refused_in_one_line() -> None:
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    refused = {
        "at least 1": (ConfigError, lambda: grow_outputs(mlp(), 0)),
        "no linear": (ConfigError, lambda: grow_outputs(nn.Sequential(nn.ReLU()), 1)),
        "parametrized": (
            IncompatibleError,
            lambda: grow_outputs(nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 2))), 1),
        ),
        "shares its weight": (IncompatibleError, lambda: grow_outputs(tied, 1)),
        "grouped": (IncompatibleError, lambda: grow_outputs(nn.Sequential(nn.Conv2d(4, 4, 1, groups=2)), 1)),
    }
    for match, (error, call) in refused.items():
        with pytest.raises(error, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_shared_copy_is_another_model_around_the_same_tensors() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    twin = shared_copy(model)
    assert all(a is b for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert all(a is b for a, b in zip(model.buffers(), twin.buffers(), strict=True))
    twin[0].weight = nn.Parameter(torch.zeros(2, 2))
    twin.register_forward_hook(lambda *_: None)
    assert model[0].weight.any() and not model._forward_hooks
