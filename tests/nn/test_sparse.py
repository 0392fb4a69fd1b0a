from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn.sparse import SparseLinear


def sparse_layer():
    mask = torch.rand(5, 8, generator=torch.Generator().manual_seed(0)) < 0.3
    mask[:, 0] = True
    return SparseLinear(8, 5, mask=mask), torch.randn(4, 8)


def drawn_layer():
    layer = SparseLinear(8, 5, density=0.4)
    return layer, torch.randn(4, 8)


def block_layer():
    mask = torch.zeros(40, 56, dtype=torch.bool)
    mask[:16, 16:48] = mask[32:, 48:] = mask[16:32, :16] = True
    return SparseLinear(56, 40, mask=mask), torch.randn(4, 56)


PARTS = [("module", sparse_layer), ("module", block_layer)]


@pytest.mark.parametrize("block", [1, 16])
def test_from_linear_computes_what_the_masked_layer_computes_and_trains_alike(block):
    torch.manual_seed(0)
    linear, mask = (
        nn.Linear(60, 40),
        torch.rand(-(-40 // block), -(-60 // block)) < (0.1 if block == 1 else 0.3),
    )
    mask = mask.repeat_interleave(block, 0).repeat_interleave(block, 1)[:40, :60]
    sparse = SparseLinear.from_linear(linear, mask)
    x, target = torch.randn(30, 60), torch.randn(30, 40)
    for layer, weight in ((sparse, sparse.values), (linear, linear.weight)):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        for _ in range(5):
            y = nn.functional.linear(x, weight * mask, linear.bias) if layer is linear else layer(x)
            optimizer.zero_grad()
            nn.functional.mse_loss(y, target).backward()
            optimizer.step()
    assert_close(sparse.to_dense(), linear.weight * mask)
    assert_close(sparse.bias, linear.bias)


def test_density_is_exact_and_the_generator_decides_everything():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, second, third = (
        SparseLinear(30, 20, density=0.1, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert len(first.values) == 60 and torch.equal(first.to_dense(), second.to_dense())
    assert not torch.equal(first.to_dense(), third.to_dense())
    row, column = first.entries()
    assert torch.equal(first.to_dense()[row, column], first.values)
    bound = 3**-0.5  # three inputs per unit
    assert 0.8 * bound < first.values.abs().max() <= bound


def test_moves_to_another_type_and_keeps_its_pattern():
    layer, x = drawn_layer()
    assert layer.double().pattern.columns.dtype == torch.int16
    assert_close(layer(x.double()), nn.functional.linear(x.double(), layer.to_dense(), layer.bias))
    half = layer.bfloat16()
    assert half(x.bfloat16()).dtype == torch.bfloat16
    assert "density=0.4" in repr(layer)


@pytest.mark.parametrize("make", [sparse_layer, drawn_layer, block_layer])
def test_state_comes_back_with_its_mask(make):
    layer, x = make()
    other, _ = make()
    assert not torch.equal(other.to_dense(), layer.to_dense())
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.to_dense(), layer.to_dense()) and torch.equal(other(x), layer(x))
    assert all(map(torch.equal, other.entries(), layer.entries()))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


def earlier_state(weight, mask, bias, panel):
    """What a layer saved before rows of a panel were sorted by their number of entries, as it was computed then."""

    def panels(i, j, rows):
        line = j // panel * rows + i
        ends = torch.bincount(line, minlength=-(-(weight.numel() // rows) // panel) * rows).cumsum(0)
        return nn.functional.pad(ends, (1, 0)).int(), (line * (weight.numel() // rows) + j).argsort()

    i, j = mask.nonzero().unbind(1)
    pointers, order = panels(i, j, len(mask))
    i, j = i[order], j[order]
    pointers_t, order_t = panels(j, i, mask.shape[1])
    index = {
        "pointers": pointers,
        "columns": j.int(),
        "pointers_t": pointers_t,
        "columns_t": i[order_t].int(),
    }
    return {"values": weight[i, j], "bias": bias, **index, "order": order_t.int()}


@pytest.mark.parametrize("make", [sparse_layer, block_layer])
@pytest.mark.parametrize("panel", [64, 128, 256])
def test_a_state_of_an_earlier_order_means_the_same_weights(make, panel):
    other = make()[0]
    columns = 3 * other.in_features
    mask = torch.cat([other.to_dense() != 0] * 3, 1)
    weight, bias = torch.randn(mask.shape) * mask, torch.randn(other.out_features)
    layer = nn.Sequential(SparseLinear(columns, other.out_features, mask=mask))
    state = {f"0.{name}": tensor for name, tensor in earlier_state(weight, mask, bias, panel).items()}
    kept = dict(state)
    layer.load_state_dict(state)
    assert torch.equal(layer[0].to_dense(), weight) and torch.equal(layer[0].bias, bias)
    assert state == kept  # the caller's own
    x = torch.randn(4, columns)
    assert_close(layer(x), nn.functional.linear(x, weight, bias))


def test_bad_settings_are_told_in_one_line():
    mask = torch.ones(5, 8, dtype=torch.bool)
    with pytest.raises(ConfigError, match="exactly one of mask and density"):
        SparseLinear(8, 5)
    with pytest.raises(ConfigError, match="exactly one of mask and density"):
        SparseLinear(8, 5, mask=mask, density=0.5)
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        SparseLinear(8, 5, density=1.5)
    with pytest.raises(ShapeError, match=r"expected \[5, 8\]"):
        SparseLinear(8, 5, mask=mask.mT)
