from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from neuropil.errors import ShapeError
from neuropil.nn.active import ActiveBlock


def block():
    return ActiveBlock(nn.Linear(4, 9), nn.Linear(9, 3)), torch.randn(5, 4)


PARTS = [("module", block)]


@pytest.mark.parametrize("bias", [True, False])
def test_computes_what_the_two_layers_compute(bias):
    torch.manual_seed(0)
    up, down = nn.Linear(20, 70, bias), nn.Linear(70, 30, bias)
    block, x = ActiveBlock(up, down), torch.randn(2, 3, 20)
    assert_close(block(x), down(up(x).relu()))
    active = (up(x[0, 0]) > 0).nonzero().squeeze(1)
    with torch.no_grad():
        assert_close(block.sample(x[0, 0], active), block(x)[0, 0])


def test_threshold_silences_weak_units():
    up, down = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
    up.weight.data, down.weight.data = torch.eye(2), torch.ones(1, 2)
    x = torch.tensor([0.4, 0.6])
    assert_close(ActiveBlock(up, down, threshold=0.5)(x), torch.tensor([0.6]))


def test_layers_that_do_not_fit_are_told_in_one_line():
    with pytest.raises(ShapeError, match="up has 5 outputs, down 4 inputs"):
        ActiveBlock(nn.Linear(3, 5), nn.Linear(4, 2))
