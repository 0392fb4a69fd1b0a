from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.testing import assert_close

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn import Dale

SIGNS = torch.tensor([1.0, -1.0, 1.0, 1.0])


def dale(layer, **options):
    return layer(), Dale(SIGNS, **options)


PARTS = [
    ("parametrization", partial(dale, partial(nn.Linear, 4, 3))),
    ("parametrization", partial(dale, partial(nn.Linear, 4, 3), rectifier="abs")),
    ("parametrization", partial(dale, partial(nn.Conv2d, 4, 2, 3))),
]


@pytest.mark.parametrize("rectifier", ["relu", "abs"])
def test_columns_keep_their_sign_whatever_is_learned(rectifier):
    layer, x = nn.Linear(4, 3), torch.randn(16, 4)
    sizes = layer.weight.detach().abs()
    parametrize.register_parametrization(layer, "weight", Dale(SIGNS, rectifier))
    assert torch.equal(layer.weight, sizes * SIGNS), "sizes are taken over"
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        (layer(x) - x[:, :3].roll(1, 1)).square().sum().backward()
        optimizer.step()
        assert (layer.weight * SIGNS >= 0).all()
    if rectifier == "relu":
        assert (layer.weight == 0).any()
    else:
        assert (layer.weight != 0).all()


def test_nothing_of_a_silenced_synapse_is_left():
    raw = torch.tensor([[-1.0, -1.0, 2.0, 0.5]], requires_grad=True)
    weight = Dale(SIGNS)(raw)
    assert weight.tolist() == [[0.0, 0.0, 2.0, 0.5]]
    assert torch.autograd.grad(weight.sum(), raw)[0].tolist() == [[0.0, 0.0, 1.0, 1.0]]


def test_it_stacks_with_a_mask():
    class Mask(nn.Module):
        def __init__(self, mask):
            super().__init__()
            self.register_buffer("mask", mask)

        def forward(self, weight):
            return weight * self.mask

        def right_inverse(self, weight):
            return weight

    layer, mask = nn.Linear(4, 3), (torch.rand(3, 4) < 0.5).float()
    parametrize.register_parametrization(layer, "weight", Dale(SIGNS))
    parametrize.register_parametrization(layer, "weight", Mask(mask))
    assert (layer.weight * SIGNS >= 0).all() and (layer.weight[mask == 0] == 0).all()
    assert_close((layer.weight != 0).float(), mask)


def test_bad_arguments_get_one_line():
    with pytest.raises(ConfigError, match=r"Dale.signs: got shape \[2\], expected a vector of 1 and -1"):
        Dale(torch.tensor([1.0, 0.5]))
    with pytest.raises(ConfigError, match=r"Dale.rectifier: got 'rele'; did you mean 'relu'\?"):
        Dale(SIGNS, "rele")
    with pytest.raises(ShapeError, match=r"Dale: weight has shape \[3, 5\], expected \[outputs, 4, ...\]"):
        parametrize.register_parametrization(nn.Linear(5, 3), "weight", Dale(SIGNS))
