"""The step in one pass is held against the equations in double precision, and against torch's bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuropil.errors import ShapeError
from neuropil.kernels import suppressed as module
from neuropil.kernels.suppressed import suppressed_step


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(0,), (1,), (3, 5), (8191,), (8192,), (130, 70)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    bound=st.sampled_from([0.0, 0.5, 10.0]),
    decay=st.sampled_from([0.0, 0.1]),
    scale=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equals_the_equations(shape, dtype, bound, decay, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    weight, gradient = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    usage = torch.rand(shape, generator=generator, dtype=dtype)
    w, g, u = (tensor.double().numpy().copy() for tensor in (weight, gradient, usage))
    suppressed_step(weight, gradient, usage, rate=-0.3, eps=0.01, bound=bound, decay=decay, scale=scale)
    used = np.where(np.abs(g) > bound, g, 0)
    u = (1 - decay) * u + np.abs(used)
    w = w - 0.3 * used / (u + 0.01 if scale else 1)
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(usage.double().numpy(), u, **tolerance)
    np.testing.assert_allclose(weight.double().numpy(), w, **tolerance)
    assert torch.equal(gradient, torch.from_numpy(g).to(dtype))


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("bound", [0.0, 0.7])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_loop_has_torchs_bits(scale, bound, threads):
    torch.manual_seed(0)
    weight, gradient, usage = torch.randn(200, 300), torch.randn(200, 300), torch.rand(200, 300)
    ours, theirs = (weight.clone(), usage.clone()), (weight.clone(), usage.clone())
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        suppressed_step(ours[0], gradient, ours[1], rate=-0.3, eps=0.01, bound=bound, scale=scale)
    finally:
        torch.set_num_threads(before)
    module._plain(theirs[0], gradient, theirs[1], -0.3, 0.01, bound, 0.0, scale)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("bound", [0.0, 0.5])
def test_not_a_number_is_not_hidden(bound):
    weight, gradient, usage = torch.zeros(9000), torch.zeros(9000), torch.zeros(9000)
    gradient[7] = float("nan")
    suppressed_step(weight, gradient, usage, rate=-1.0, eps=0.1, bound=bound)
    assert weight[7].isnan()
    assert weight.isnan().sum() == 1


def test_other_shapes_are_refused():
    with pytest.raises(ShapeError, match="expected one shape"):
        suppressed_step(torch.zeros(2), torch.zeros(3), torch.zeros(2), rate=1.0, eps=1.0)
