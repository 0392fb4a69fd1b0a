"""A linear layer fed with spikes is held against the dense one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from neuropil.kernels import spike_linear as module
from neuropil.kernels.spike_linear import spike_linear, spike_linear_op, weight_gradient_op
from neuropil.kernels.transposing import transposed
from neuropil.nn import LIF, RateReadout, Sequential


@pytest.fixture(autouse=True)
def small_is_worth_looking(monkeypatch):
    monkeypatch.setattr(module, "_WORTH_LOOKING", 0)


def problem(samples, neurons, outputs, rate, dtype=torch.float64, graded=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    spikes = (torch.rand(samples, neurons, generator=generator) < rate).to(dtype)
    if graded:
        spikes = spikes * torch.randn(samples, neurons, generator=generator, dtype=dtype)
    weight = torch.randn(outputs, neurons, generator=generator, dtype=dtype)
    return spikes.requires_grad_(), weight.requires_grad_()


@settings(max_examples=60, deadline=None)
@given(
    samples=st.sampled_from([1, 2, 15, 16, 65, 300]),
    neurons=st.sampled_from([1, 2, 16, 63, 255, 256, 257, 600]),
    outputs=st.sampled_from([1, 2, 16, 63, 64, 65, 200]),
    rate=st.sampled_from([0.0, 0.02, 0.1, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    graded=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_product_and_gradients_equal_the_dense_ones(
    samples, neurons, outputs, rate, dtype, graded, bias, seed
):
    module._WORTH_LOOKING = 0
    spikes, weight = problem(samples, neurons, outputs, rate, dtype, graded, seed)
    offset = torch.arange(outputs, dtype=dtype).requires_grad_() if bias else None
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    got, wanted = spike_linear(spikes, weight, offset), functional.linear(spikes, weight, offset)
    assert_close(got, wanted, **tolerance)
    inputs = [tensor for tensor in (spikes, weight, offset) if tensor is not None]
    g = torch.rand(got.shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    assert_close(torch.autograd.grad(got, inputs, g), torch.autograd.grad(wanted, inputs, g), **tolerance)


def test_events_are_used_only_where_few_are_active(monkeypatch):
    spikes, weight = (tensor.detach() for tensor in problem(4, 300, 20, 0.1))
    silent = (spikes == 0).all(0)
    assert silent.any()
    weight[:, silent] = float("nan")  # what silent neurons hold is never added
    assert spike_linear(spikes, weight).isfinite().all()
    monkeypatch.setattr(module, "_DENSE_FROM", 0.0)
    assert not spike_linear(spikes, weight).isfinite().any()


@pytest.mark.parametrize("rate", [0.1, 0.9])
def test_passes_gradcheck(rate):
    spikes, weight = problem(3, 20, 4, rate, graded=True)
    assert torch.autograd.gradcheck(spike_linear, (spikes, weight))
    assert torch.autograd.gradgradcheck(spike_linear, (spikes, weight))


def test_operators_are_registered_as_torch_wants_them():
    spikes, weight = problem(20, 30, 40, 0.1, torch.float32)
    torch.library.opcheck(spike_linear_op, (spikes, weight))
    torch.library.opcheck(weight_gradient_op, (spikes.detach(), torch.rand(20, 40)))


def test_threads_change_no_bit():
    spikes, weight = problem(200, 500, 700, 0.05, torch.float32)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            y = spike_linear(spikes, weight)
            results.append((y, torch.autograd.grad(y.sum(), weight)[0]))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for result in results for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (37, 53), (64, 48), (0, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_transposed_is_the_transpose(shape, dtype):
    matrix = torch.arange(shape[0] * shape[1]).view(shape).to(dtype)
    assert torch.equal(transposed(matrix), matrix.mT) and transposed(matrix).is_contiguous()


def test_a_network_multiplies_spikes_this_way_unless_someone_listens(monkeypatch):
    seen = []

    def watched(*args):
        seen.append(args)
        return spike_linear(*args)

    monkeypatch.setattr("neuropil.nn.sequential.spike_linear", watched)
    torch.manual_seed(0)
    net = Sequential(nn.Linear(30, 20), LIF(), nn.Linear(20, 5), RateReadout())
    x = (torch.rand(4, 8, 30) < 0.1).float()
    y = net(x)
    assert len(seen) == 2
    calls = []
    net[0].register_forward_hook(lambda *_: calls.append(1))
    assert_close(net(x), y)
    assert len(seen) == 3 and calls == [1]
