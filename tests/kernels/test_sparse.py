"""The sparse product is held against the dense one, its gradients against finite differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from neuropil.errors import DataError, ShapeError
from neuropil.kernels import sparse as module
from neuropil.kernels.sparse import (
    dense_weight,
    entries,
    sparse_linear,
    sparse_linear_reference,
    sparse_pattern,
    sparse_values,
)
from neuropil.kernels.sparse_dense import from_dense, to_dense
from neuropil.kernels.sparse_op import sparse, sparse_backward_op


@pytest.fixture(autouse=True)
def never_dense(monkeypatch):
    for name in ("_DENSE_FROM", "_DENSE_FROM_FOR_FEW", "_DENSE_FROM_BLOCKS"):
        monkeypatch.setattr(module, name, 2.0)


def problem(samples, rows, features, density, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pattern = sparse_pattern(torch.rand(rows, features, generator=generator) < density)
    x = torch.randn(samples, features, generator=generator, dtype=dtype)
    values = torch.randn(pattern.kept, generator=generator, dtype=dtype)
    return x.requires_grad_(), values.requires_grad_(), pattern


def gradients(function, x, values, pattern):
    y = function(x, values, pattern)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return y, torch.autograd.grad((y * weights).sum(), (x, values), materialize_grads=True)


def test_pattern_orders_every_entry_once_and_both_ways():
    mask = torch.rand(70, 300, generator=torch.Generator().manual_seed(0)) < 0.2
    pattern = sparse_pattern(mask)
    row, column = entries(pattern)
    found = torch.zeros_like(mask)
    found[row, column] = True
    assert torch.equal(found, mask) and len(row) == mask.sum()
    row_t, column_t = entries(sparse_pattern(mask.mT))
    assert torch.equal(row[pattern.order], column_t) and torch.equal(column[pattern.order], row_t)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        weight = torch.randn(70, 300).to(dtype)
        values = sparse_values(weight, pattern)
        assert torch.equal(values, weight[row, column])
        assert torch.equal(dense_weight(values, pattern), weight * mask)


@pytest.mark.parametrize("samples", [1, 9, 40])
def test_passes_gradcheck(samples):
    x, values, pattern = problem(samples, 3, 5, 0.5)
    assert torch.autograd.gradcheck(lambda x, values: sparse_linear(x, values, pattern), (x, values))


@settings(max_examples=60, deadline=None)
@given(
    samples=st.sampled_from([1, 2, 8, 15, 16, 17, 33, 64, 65, 130]),
    rows=st.sampled_from([1, 2, 15, 16, 17, 40, 129]),
    features=st.sampled_from([1, 2, 15, 16, 17, 70, 200]),
    density=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    layout=st.sampled_from(["contiguous", "transposed", "strided"]),
    seed=st.integers(0, 99),
)
def test_equals_reference_for_every_shape_density_and_layout(
    samples, rows, features, density, dtype, layout, seed
):
    x, values, pattern = problem(samples, rows, features, density, dtype, seed)
    if layout == "transposed":
        x = x.detach().mT.contiguous().mT.requires_grad_()
    elif layout == "strided":
        x = torch.stack([x.detach(), x.detach()], dim=2)[..., 0].requires_grad_()
    mine, wanted = (gradients(f, x, values, pattern) for f in (sparse_linear, sparse_linear_reference))
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    assert_close(mine, wanted, **tolerance)


@pytest.mark.parametrize("wanted", [0, 1])
def test_one_gradient_alone(wanted):
    x, values, pattern = problem(20, 33, 65, 0.2)
    inputs = [x.detach(), values.detach()]
    inputs[wanted].requires_grad_()
    expected = gradients(sparse_linear_reference, x, values, pattern)[1][wanted]
    y = sparse_linear(*inputs, pattern)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    assert_close(torch.autograd.grad((y * weights).sum(), inputs[wanted])[0], expected)


def test_leading_axes_empty_batch_and_no_features():
    x, values, pattern = problem(6, 7, 9, 0.3)
    y = sparse_linear(x.view(2, 3, 9), values, pattern)
    assert_close(y, sparse_linear_reference(x, values, pattern).view(2, 3, 7))
    assert_close(sparse_linear(x[0], values, pattern), y[0, 0])
    y, (g_x, g_values) = gradients(sparse_linear, x.detach()[:0].requires_grad_(), values, pattern)
    assert y.shape == (0, 7) and g_x.shape == (0, 9) and not g_values.any()
    nothing = sparse_pattern(torch.ones(0, 9, dtype=torch.bool))
    assert sparse_linear(x.detach(), values.detach()[:0], nothing).shape == (6, 0)


def test_threads_change_no_bit():
    x, values, pattern = problem(70, 500, 400, 0.1, torch.float32)
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


@pytest.mark.parametrize("smaller", [False, True])
def test_chunks_of_many_rows_and_smaller_ones_as_they_were_once_saved(monkeypatch, smaller):
    if smaller:
        monkeypatch.setattr(module, "chunk_rows", lambda rows: 64)
    x, _, pattern = problem(5, 1100, 70, 0.2)
    weight = torch.randn(1100, 70, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    weight *= dense_weight(torch.ones(pattern.kept, dtype=x.dtype), pattern)
    values = sparse_values(weight, pattern).requires_grad_()
    assert torch.equal(dense_weight(values, pattern), weight)
    y, (g_x, g_values) = gradients(sparse_linear, x, values, pattern)
    y_, (g_x_, g_values_) = gradients(sparse_linear_reference, x, values, pattern)
    assert_close([y, g_x, g_values], [y_, g_x_, g_values_])


@pytest.mark.parametrize(
    ("samples", "density", "is_dense"), [(3, 0.9, True), (64, 0.6, False), (65, 0.6, True), (65, 0.4, False)]
)
def test_many_entries_are_multiplied_densely(monkeypatch, samples, density, is_dense):
    x, values, pattern = problem(samples, 20, 20, density)
    monkeypatch.setattr(module, "_DENSE_FROM", 0.5)
    monkeypatch.setattr(module, "_DENSE_FROM_FOR_FEW", 0.75)
    asked = []
    ask = module.product
    monkeypatch.setattr(module, "product", lambda *given: asked.append(1) or ask(*given))
    assert_close(sparse_linear(x, values, pattern), x @ dense_weight(values, pattern).mT)
    assert asked == [1] * (not is_dense)


def test_dense_and_back_pass_gradcheck_and_opcheck():
    _, values, pattern = problem(1, 5, 7, 0.4)
    weight = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda values: dense_weight(values, pattern).sin(), values)
    assert torch.autograd.gradgradcheck(lambda weight: sparse_values(weight, pattern).sin(), weight)
    torch.library.opcheck(to_dense, (values, 5, 7, *pattern[:3]))
    torch.library.opcheck(from_dense, (weight, *pattern[:3]))


def test_operators_pass_opcheck():
    x, values, pattern = problem(18, 17, 20, 0.3)
    torch.library.opcheck(sparse, (x, values, *pattern))
    y = sparse(x.detach(), values.detach(), *pattern)
    for wants in ((True, True), (True, False), (False, True)):
        torch.library.opcheck(sparse_backward_op, (y, x.detach(), values.detach(), *pattern, *wants))


def test_bad_input_is_told_in_one_line():
    x, values, pattern = problem(2, 3, 5, 0.5)
    with pytest.raises(ShapeError, match=r"expected \[\.\.\., 5\]"):
        sparse_linear(x[:, 1:], values, pattern)
    with pytest.raises(ShapeError, match=r"values are torch\.float32"):
        sparse_linear(x, values.float(), pattern)
    with pytest.raises(ShapeError, match=r"expected \[rows, columns\]"):
        sparse_pattern(torch.ones(3, dtype=torch.bool))
    with pytest.raises(DataError, match=r"torch\.bool"):
        sparse_pattern(torch.ones(3, 3))
