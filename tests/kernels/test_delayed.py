from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from neuropil.errors import ShapeError
from neuropil.kernels.delayed import _transformed, delayed_sum, delayed_sum_reference


@settings(max_examples=40, deadline=None)
@given(
    steps=st.integers(1, 30),
    taps=st.integers(1, 12),
    size=st.integers(1, 30),
    inputs=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_products_of_frequencies_add_up_to_the_sum(steps, taps, size, inputs, seed):
    """Any length, in blocks of any size, even and odd windows."""
    generator = torch.Generator().manual_seed(seed)
    line = torch.randn(steps + taps - 1, 2, inputs, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, inputs, taps, generator=generator, dtype=torch.float64)
    assert_close(_transformed(line, weight, min(size, steps)), delayed_sum_reference(line, weight))


@pytest.mark.parametrize(("steps", "taps"), [(44, 25), (500, 25), (60, 10)])
def test_long_sequences_are_exact_within_rounding(steps, taps):
    torch.manual_seed(0)
    line = (torch.rand(steps + taps - 1, 8, 20) < 0.1).float().requires_grad_()
    weight = torch.randn(12, 20, taps).requires_grad_()
    g = torch.randn(steps, 8, 12)
    found = delayed_sum(line, weight)
    gradients = torch.autograd.grad(found, (line, weight), g)
    exact = delayed_sum_reference(line.double(), weight.double())
    exact_gradients = torch.autograd.grad(exact, (line, weight), g.double())
    assert_close(found, exact.float(), rtol=0, atol=2e-6 * float(exact.detach().abs().max()))
    for one, two in zip(gradients, exact_gradients, strict=True):
        assert_close(one, two, rtol=0, atol=2e-6 * float(two.abs().max()))


def test_it_is_numpys_convolution():
    numpy = pytest.importorskip("numpy")
    line = torch.randn(100, 1, 1, dtype=torch.float64)
    weight = torch.randn(1, 1, 20, dtype=torch.float64)
    wanted = numpy.convolve(line.flatten(), weight.flatten(), mode="valid")
    assert_close(delayed_sum(line, weight).flatten(), torch.from_numpy(wanted))


def test_second_derivatives():
    line = torch.randn(20, 1, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda a, b: _transformed(a, b, 16), (line, weight))


def test_a_later_input_moves_an_earlier_output_by_rounding_only():
    line, weight = torch.zeros(68, 1, 1), torch.ones(1, 1, 25)
    line[60] = 1
    y = delayed_sum(line, weight).flatten()
    assert y[:36].abs().max() < 1e-6
    assert_close(y[36:], torch.ones(8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_is_kept(dtype):
    assert delayed_sum(torch.randn(50, 2, 3, dtype=dtype), torch.randn(4, 3, 9, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("line", "taps"), [((5, 2, 3), (4, 2, 2)), ((5, 2), (4, 2, 2)), ((5, 2, 3), (4, 3, 6))]
)
def test_what_does_not_fit_gets_one_line(line, taps):
    with pytest.raises(ShapeError, match=r"delayed_sum: line .* does not fit taps") as caught:
        delayed_sum(torch.zeros(line), torch.zeros(taps))
    assert "\n" not in str(caught.value)
