"""The compiled recurrent run is held against plain torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from neuropil.errors import ShapeError
from neuropil.kernels import compiled
from neuropil.kernels.recurrent import Adaptation, recurrent_reference, recurrent_scan
from neuropil.kernels.recurrent_op import recurrent


def network(steps, batch, neurons, *, adapts=False, per_neuron=True, dtype=torch.float64, seed=0):
    """Weights on a grid of 1/64, so that every order of summation gives the same number."""
    draw = torch.Generator().manual_seed(seed)

    def grid(*shape):
        return (torch.randn(*shape, generator=draw) * 16).round().to(dtype) / 64

    shape = (neurons,) if per_neuron else ()
    x, weight, bias = grid(steps, batch, neurons) + 0.25, grid(neurons, neurons), grid(neurons)
    output = (torch.rand(batch, neurons, generator=draw) < 0.2).to(dtype)
    numbers = torch.full(shape, 0.875, dtype=dtype), torch.full(shape, 0.75, dtype=dtype)
    adaptation = None
    if adapts:
        adaptation = Adaptation(
            grid(batch, neurons).abs(),
            torch.full(shape, 0.25, dtype=dtype),
            0.5 * torch.ones(shape, dtype=dtype),
        )
    return x, output, grid(batch, neurons), weight, bias, *numbers, adaptation


def same(mine, wanted, tolerance=1e-12):
    assert torch.equal(mine.spikes, wanted.spikes)
    for name in ("driven", "membrane", "trace"):
        a, b = getattr(mine, name), getattr(wanted, name)
        assert (a is None) == (b is None)
        if a is not None:
            assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("adapts", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_kernel_equals_reference(dtype, adapts, zero):
    given_ = network(60, 5, 30, adapts=adapts, dtype=dtype)
    mine = recurrent_scan(*given_, reset_to_zero=zero)
    wanted = recurrent_reference(*given_, reset_to_zero=zero)
    assert 0.02 < wanted.spikes.mean() < 0.9
    same(mine, wanted, 1e-4 if dtype == torch.float32 else 1e-12)


@settings(max_examples=30, deadline=None)
@given(
    steps=st.integers(0, 6), batch=st.integers(0, 3), neurons=st.integers(1, 9), adapts=st.booleans(),
    per_neuron=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_every_shape_equals_the_reference(steps, batch, neurons, adapts, per_neuron, seed):
    given_ = network(steps, batch, neurons, adapts=adapts, per_neuron=per_neuron, seed=seed)
    same(recurrent_scan(*given_), recurrent_reference(*given_))


def test_strides_threads_and_a_graded_last_output_change_nothing():
    x, output, v, weight, _, *rest = network(40, 8, 12)
    turned = (
        x.transpose(0, 2).contiguous().transpose(0, 2),
        output / 4,
        v,
        weight.mT.contiguous().mT,
        None,
        *rest,
    )
    before = torch.get_num_threads()
    wanted = recurrent_reference(*turned)
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            same(recurrent_scan(*turned), wanted)
    finally:
        torch.set_num_threads(before)


def test_without_the_compiler_it_is_plain_torch(monkeypatch):
    given_ = network(10, 2, 5)
    wanted = recurrent_scan(*given_)
    monkeypatch.setattr(compiled, "HAS_NUMBA", False)
    same(recurrent_scan(*given_), wanted)


def test_what_does_not_fit_is_refused():
    x, output, v, weight, bias, *rest = network(3, 2, 4)
    with pytest.raises(ShapeError, match=r"weight has shape \[4, 3\], expected \[4, 4\]"):
        recurrent_scan(x, output, v, weight[:, :3], bias, *rest)
    with pytest.raises(ShapeError, match=r"expected \[time, batch, neurons\]"):
        recurrent_scan(x[0], output, v, weight, bias, *rest)
    with pytest.raises(ShapeError, match="output has shape"):
        recurrent_scan(x, output[:1], v, weight, bias, *rest)


def test_the_operator_keeps_its_contract():
    x, output, v, weight, bias, decay, threshold, adaptation = network(
        6, 2, 4, adapts=True, dtype=torch.float32
    )
    given_ = (x, output, v, adaptation.trace, weight, bias, decay, threshold, *adaptation[1:], False)
    torch.library.opcheck(recurrent, given_)
