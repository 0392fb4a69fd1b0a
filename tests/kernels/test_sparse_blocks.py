"""Products of matrices of whole blocks are held against dense ones, their gradients against finite differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from neuropil.kernels import sparse as module
from neuropil.kernels.sparse import (
    SparsePattern,
    dense_weight,
    entries,
    sparse_linear,
    sparse_linear_reference,
    sparse_pattern,
    sparse_values,
)
from neuropil.kernels.sparse_block_dense import blocks_from_dense, blocks_to_dense
from neuropil.kernels.sparse_block_op import block_sparse, block_sparse_backward
from neuropil.kernels.sparse_blocks import BlockPattern


@pytest.fixture(autouse=True)
def never_dense(monkeypatch):
    monkeypatch.setattr(module, "_DENSE_FROM_BLOCKS", 2.0)


def block_mask(rows, features, size, density, seed=0):
    generator = torch.Generator().manual_seed(seed)
    grid = torch.rand(-(-rows // size), -(-features // size), generator=generator) < density
    return grid.repeat_interleave(size, 0).repeat_interleave(size, 1)[:rows, :features]


def problem(samples, rows, features, size, density, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pattern = sparse_pattern(block_mask(rows, features, size, density, seed))
    x = torch.randn(samples, features, generator=generator, dtype=dtype)
    values = torch.randn(pattern.kept, generator=generator, dtype=dtype)
    return x.requires_grad_(), values.requires_grad_(), pattern


def gradients(function, x, values, pattern):
    y = function(x, values, pattern)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return y, torch.autograd.grad((y * weights).sum(), (x, values), materialize_grads=True)


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("shape", [(64, 96), (70, 50), (33, 47)])
@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
def test_entries_are_those_of_the_mask_once_each_and_values_come_back(size, shape, density):
    mask = block_mask(*shape, size, density)
    pattern = sparse_pattern(mask)
    assert isinstance(pattern, BlockPattern)
    row, column = entries(pattern)
    found = torch.zeros(shape, dtype=torch.int)
    found.index_put_((row, column), torch.tensor(1, dtype=torch.int), accumulate=True)
    assert torch.equal(found, mask.int()) and pattern.kept == len(row)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        weight = torch.randn(shape).to(dtype)
        values = sparse_values(weight, pattern)
        assert torch.equal(values, weight[row, column])
        assert torch.equal(dense_weight(values, pattern), weight * mask)


def test_the_largest_size_that_fits_is_found_and_a_mask_that_is_almost_of_blocks_is_taken_entry_by_entry():
    assert [sparse_pattern(block_mask(128, 96, size, 0.5)).size for size in (16, 32, 64)] == [16, 32, 32]
    mask = block_mask(70, 90, 16, 0.5)
    for at in ((3, 5), (69, 89), (40, 16)):
        almost = mask.clone()
        almost[at] = ~almost[at]
        assert isinstance(sparse_pattern(almost), SparsePattern)
    assert isinstance(sparse_pattern(torch.ones(15, 90, dtype=torch.bool)), SparsePattern)


def test_the_block_way_is_gone(monkeypatch):
    x, values, pattern = problem(5, 40, 50, 16, 0.5)
    wanted = sparse_linear_reference(x, values, pattern)
    monkeypatch.setattr(module, "dense_weight", None)  # must not be asked
    monkeypatch.setattr(module, "sparse", None)
    assert_close(sparse_linear(x, values, pattern), wanted)


@settings(max_examples=50, deadline=None)
@given(
    samples=st.sampled_from([1, 3, 8, 9, 33, 64, 130, 300]),
    rows=st.sampled_from([16, 17, 32, 40, 63, 129]),
    features=st.sampled_from([16, 31, 32, 33, 70, 200]),
    size=st.sampled_from([16, 32, 64]),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    layout=st.sampled_from(["contiguous", "transposed", "strided"]),
    seed=st.integers(0, 99),
)
def test_equals_reference_for_every_shape_density_and_layout(
    samples, rows, features, size, density, dtype, layout, seed
):
    x, values, pattern = problem(samples, rows, features, size, density, dtype, seed)
    if layout == "transposed":
        x = x.detach().mT.contiguous().mT.requires_grad_()
    elif layout == "strided":
        x = torch.stack([x.detach(), x.detach()], dim=2)[..., 0].requires_grad_()
    mine, wanted = (gradients(f, x, values, pattern) for f in (sparse_linear, sparse_linear_reference))
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    assert_close(mine, wanted, **tolerance)


@pytest.mark.parametrize("samples", [1, 3])
def test_passes_gradcheck(samples):
    x, values, pattern = problem(samples, 17, 33, 16, 0.6)
    assert torch.autograd.gradcheck(lambda x, values: sparse_linear(x, values, pattern), (x, values))


@pytest.mark.parametrize("wanted", [0, 1])
def test_one_gradient_alone(wanted):
    x, values, pattern = problem(20, 33, 65, 16, 0.5)
    inputs = [x.detach(), values.detach()]
    inputs[wanted].requires_grad_()
    expected = gradients(sparse_linear_reference, x, values, pattern)[1][wanted]
    y = sparse_linear(*inputs, pattern)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    assert_close(torch.autograd.grad((y * weights).sum(), inputs[wanted])[0], expected)


def test_second_derivatives_are_refused_and_not_wrong():
    x, values, pattern = problem(4, 32, 32, 16, 0.5)
    (g_x,) = torch.autograd.grad(sparse_linear(x, values, pattern).pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g_x.sum().backward()


def test_leading_axes_and_empty_batch():
    x, values, pattern = problem(6, 40, 50, 16, 0.5)
    y = sparse_linear(x.view(2, 3, 50), values, pattern)
    assert_close(y, sparse_linear_reference(x, values, pattern).view(2, 3, 40))
    assert_close(sparse_linear(x[0], values, pattern), y[0, 0])
    y, (g_x, g_values) = gradients(sparse_linear, x.detach()[:0].requires_grad_(), values, pattern)
    assert y.shape == (0, 40) and g_x.shape == (0, 50) and not g_values.any()


def test_threads_change_no_bit():
    x, values, pattern = problem(150, 500, 400, 32, 0.3, torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(gradients(sparse_linear, x, values, pattern))
    finally:
        torch.set_num_threads(threads)
    for y, grads in results[1:]:
        assert torch.equal(y, results[0][0])
        assert all(map(torch.equal, grads, results[0][1]))


def test_many_blocks_are_multiplied_densely(monkeypatch):
    x, values, pattern = problem(3, 32, 48, 16, 1.0)
    monkeypatch.setattr(module, "_DENSE_FROM_BLOCKS", 0.75)
    assert_close(sparse_linear(x, values, pattern), x @ dense_weight(values, pattern).mT)
    monkeypatch.setattr(module, "_MANY_SAMPLES", 3)
    monkeypatch.setattr(module, "product", None)  # the kernel must not be asked
    assert_close(sparse_linear(x, values, pattern), x @ dense_weight(values, pattern).mT)
    with pytest.raises(TypeError):
        sparse_linear(x[:2], values, pattern)


def test_dense_and_back_pass_gradcheck_and_opcheck():
    _, values, pattern = problem(1, 17, 35, 16, 0.6)
    weight = torch.randn(17, 35, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda values: dense_weight(values, pattern).sin(), values)
    assert torch.autograd.gradgradcheck(lambda weight: sparse_values(weight, pattern).sin(), weight)
    index = (pattern.pointers, pattern.columns, pattern.starts, *pattern[-4:])
    torch.library.opcheck(blocks_to_dense, (values, *index))
    torch.library.opcheck(blocks_from_dense, (weight, *index))


def test_operators_pass_opcheck():
    x, values, pattern = problem(18, 40, 50, 16, 0.5)
    torch.library.opcheck(block_sparse, (x, values, *pattern[:-1]))
    y = block_sparse(x.detach(), values.detach(), *pattern[:-1])
    for wants in ((True, True), (True, False), (False, True)):
        torch.library.opcheck(block_sparse_backward, (y, x.detach(), values.detach(), *pattern[:-1], *wants))


def test_a_compiled_graph_computes_the_same():
    x, values, pattern = problem(9, 40, 50, 16, 0.5)
    compiled = torch.compile(lambda x, values: sparse_linear(x, values, pattern), backend="aot_eager")
    assert_close(
        gradients(lambda x, values, _: compiled(x, values), x, values, None),
        gradients(sparse_linear, x, values, pattern),
    )
