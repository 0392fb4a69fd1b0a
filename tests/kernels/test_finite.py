"""One number that is not finite is found wherever it is, and nothing else is taken for one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuropil.kernels.finite import _LARGE, all_finite, nonfinite

SHAPES = [(0,), (3, 5), (), (300, 400), (1,)]


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    where=st.integers(0, 120_016),
    value=st.sampled_from([torch.nan, torch.inf, -torch.inf]),
    transposed=st.booleans(),
    threads=st.sampled_from([1, 2]),
)
def test_it_is_found_wherever_it_is(dtype, where, value, transposed, threads):
    tensors = [torch.full(shape, -0.5, dtype=dtype) for shape in SHAPES]
    if transposed:
        tensors[3] = tensors[3].T
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert all_finite(tensors)
        for tensor in tensors:
            if 0 <= where < tensor.numel():
                tensor[tuple(torch.unravel_index(torch.tensor(where), tensor.shape))] = value
                break
            where -= tensor.numel()
        assert not all_finite(tensors)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_the_largest_and_the_smallest_numbers_are_finite(dtype):
    limits = torch.finfo(dtype)
    assert all_finite(
        [torch.tensor([limits.max, limits.min, limits.tiny, -0.0, limits.tiny / 4], dtype=dtype)] * 3
    )
    assert all_finite([])


def test_sparse_and_dense_together():
    weights = torch.eye(3).to_sparse()
    assert all_finite([torch.ones(2), weights])
    assert not all_finite([torch.ones(2), weights * torch.nan])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("numbers", [0, 5, 1000, _LARGE + 1])
@pytest.mark.parametrize("learns", [False, True])
def test_those_that_are_not_finite_are_counted(numbers, dtype, learns):
    x = torch.full((2, numbers), torch.finfo(dtype).max, dtype=dtype).T
    assert nonfinite(x.requires_grad_(learns)) == 0
    bad = torch.tensor([torch.nan, torch.inf, -torch.inf], dtype=dtype)[:numbers]
    with torch.no_grad():
        x[: len(bad), 1] = bad
    assert nonfinite(x) == len(bad)


def test_sparse_tensors_and_those_beside_a_transform_are_looked_at_too():
    assert nonfinite(torch.eye(3).to_sparse()) == 0
    x, bad = torch.ones(3), torch.tensor([1.0, torch.nan])
    found = []
    torch.func.jvp(lambda w: (found.extend([nonfinite(x), nonfinite(bad)]), w)[1], (x,), (x,))
    assert found == [0, 1]
