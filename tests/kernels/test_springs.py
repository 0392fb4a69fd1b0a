"""The pull of springs is held against numpy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuropil.errors import ShapeError
from neuropil.kernels.springs import with_pull


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(0,), (1,), (3, 5), (100, 90), (8192,), (8193,), (4, 3, 50, 40)]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    transposed=st.booleans(),
    one=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equals_the_formula(shape, dtype, transposed, one, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(shape, generator=generator).to(dtype) for _ in range(4)]
    if transposed:
        tensors = [tensor.transpose(0, -1) for tensor in tensors]
    if one:
        tensors[3] = torch.rand((), generator=generator).to(dtype)
    before = [tensor.clone() for tensor in tensors]
    found = with_pull(*tensors, strength=0.7)
    g, w, a, k = (tensor.double().numpy() for tensor in tensors)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    np.testing.assert_allclose(found.double().numpy(), g + 0.7 * k * (w - a), rtol=tolerance, atol=tolerance)
    assert found.dtype == dtype
    assert all(torch.equal(x, y) for x, y in zip(tensors, before, strict=True))


def test_threads_give_the_same_bits():
    torch.manual_seed(0)
    tensors = [torch.randn(300, 500) for _ in range(4)]
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(with_pull(*tensors, strength=3.0))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_other_shapes_are_refused():
    with pytest.raises(ShapeError, match="expected one shape"):
        with_pull(torch.zeros(2), torch.zeros(2), torch.zeros(3), torch.zeros(2), 1.0)
