"""The block over active units is held against the two dense products."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from neuropil.errors import DataError, ShapeError
from neuropil.kernels.active import active_block, active_block_reference, sum_active, thresholded_block


def problem(features, units, outputs, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (features,), (units, features), (units, outputs), (units,)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


@settings(max_examples=50, deadline=None)
@given(
    features=st.sampled_from([1, 15, 31, 32, 33, 64, 130]),
    units=st.sampled_from([1, 31, 33, 200]),
    outputs=st.sampled_from([1, 31, 64, 65, 130]),
    share=st.sampled_from([0.0, 0.1, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equals_reference_for_every_shape(features, units, outputs, share, dtype, biased, seed):
    x, up, down, bias = problem(features, units, outputs, dtype, seed)
    active = torch.randperm(units, generator=torch.Generator().manual_seed(seed))[: round(share * units)]
    args = x, up, down, active, bias if biased else None
    tolerance = {"rtol": 1e-4, "atol": 1e-3} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    assert_close(active_block(*args), active_block_reference(*args), **tolerance)


def test_all_units_make_the_dense_block_and_the_active_ones_suffice():
    x, up, down, bias = problem(40, 90, 50)
    drive = up @ x + bias
    dense = drive.relu() @ down
    assert_close(active_block(x, up, down, torch.arange(90), bias), dense)
    assert_close(active_block(x, up, down, (drive > 0).nonzero().squeeze(1), bias), dense)
    assert_close(thresholded_block(x, up, down, 0.0, bias), dense)
    high = torch.where(drive > 3, drive, torch.zeros_like(drive))
    assert_close(thresholded_block(x, up, down, 3.0, bias), high @ down)


def test_gradients_are_exact_with_the_set_held_fixed():
    x, up, down, bias = (tensor.requires_grad_() for tensor in problem(3, 6, 2))
    active = torch.tensor([0, 2, 5])
    assert torch.autograd.gradcheck(lambda *a: active_block(*a[:3], active, a[3]), (x, up, down, bias))
    assert torch.autograd.gradcheck(lambda *a: thresholded_block(*a[:3], 0.0, a[3]), (x, up, down, bias))


def test_threads_change_no_bit():
    x, up, down, bias = problem(300, 700, 200, torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(active_block(x, up, down, torch.arange(0, 700, 2), bias))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_operator_passes_opcheck():
    x, up, down, bias = problem(33, 40, 35)
    torch.library.opcheck(sum_active, (x, up, bias, down, torch.tensor([3, 7, 39])))


def test_bad_input_is_told_in_one_line():
    x, up, down, bias = problem(4, 5, 3)
    with pytest.raises(ShapeError, match="do not fit"):
        active_block(x[1:], up, down, torch.tensor([0]))
    with pytest.raises(ShapeError, match="bias has shape"):
        active_block(x, up, down, torch.tensor([0]), bias[1:])
    with pytest.raises(ShapeError, match="expected int64"):
        active_block(x, up, down, torch.tensor([0.0]))
    with pytest.raises(DataError, match="outside 0 to 4"):
        active_block(x, up, down, torch.tensor([5]))
    with pytest.raises(DataError, match="expected 0 or more"):
        thresholded_block(x, up, down, -1.0)
