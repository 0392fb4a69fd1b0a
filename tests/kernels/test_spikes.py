"""The product with spikes is held against the dense product."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from neuropil.errors import ShapeError
from neuropil.kernels import spikes as module
from neuropil.kernels.spikes import spike_product, spike_rows


def problem(samples, neurons, outputs, rate, dtype=torch.float64, graded=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    spikes = (torch.rand(samples, neurons, generator=generator) < rate).to(dtype)
    if graded:
        spikes = spikes * torch.randn(samples, neurons, generator=generator, dtype=dtype)
    return spikes, torch.randn(neurons, outputs, generator=generator, dtype=dtype)


@settings(max_examples=60, deadline=None)
@given(
    samples=st.sampled_from([1, 2, 63, 64, 65, 300]),
    neurons=st.sampled_from([1, 2, 63, 64, 65, 255, 256, 257, 600]),
    outputs=st.sampled_from([1, 2, 63, 64, 65, 200]),
    rate=st.sampled_from([0.0, 0.02, 0.2, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    graded=st.booleans(),
    grad=st.booleans(),
    at_once=st.sampled_from([0, 1 << 18]),
    seed=st.integers(0, 99),
)
def test_equals_the_dense_product(samples, neurons, outputs, rate, dtype, graded, grad, at_once, seed):
    spikes, weight = problem(samples, neurons, outputs, rate, dtype, graded, seed)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    with torch.set_grad_enabled(grad), pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AT_ONCE", at_once)
        assert_close(spike_product(spikes, weight), spikes @ weight, **tolerance)


@pytest.mark.parametrize(
    ("samples", "crossover", "at_once"),
    [(4, "_DENSE_FROM", 1200), (4, "_DENSE_FROM", 1199), (1, "_DENSE_FROM_ALONE", 1200)],
)
def test_uses_the_events_only_and_falls_back_above_the_crossover(samples, crossover, at_once, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    spikes, weight = problem(samples, 300, 5, 0.1)
    silent = (spikes == 0).all(0)
    assert silent.any()
    weight[silent] = float("nan")  # what silent neurons hold is never read
    assert spike_product(spikes, weight).isfinite().all()
    monkeypatch.setattr(module, crossover, 0.0)
    assert not spike_product(spikes, weight).isfinite().any()


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("neuron", [5, 70, 129])  # in a whole register and behind the last
def test_zero_is_silent_whatever_its_sign_and_no_number_is_not(samples, dtype, neuron):
    spikes, weight = torch.zeros(samples, 130, dtype=dtype), torch.ones(130, 20, dtype=dtype)
    weight[neuron] = float("inf")
    spikes[:, neuron] = -0.0
    assert (spike_product(spikes, weight) == 0).all()
    spikes[:, neuron] = float("nan")
    assert spike_product(spikes, weight).isnan().all()


@pytest.mark.parametrize("rate", [0.1, 0.9])
def test_passes_gradcheck(rate):
    spikes, weight = problem(3, 10, 4, rate, graded=True)
    inputs = spikes.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(spike_product, inputs)
    assert torch.autograd.gradgradcheck(spike_product, inputs)


def test_other_layouts_and_empty_axes():
    spikes, weight = problem(6, 30, 7, 0.2)
    wanted = spikes @ weight
    assert_close(spike_product(spikes.view(2, 3, 30), weight), wanted.view(2, 3, 7))
    assert_close(spike_product(spikes[0], weight), wanted[0])
    assert_close(spike_product(spikes.mT.contiguous().mT, weight), wanted)
    assert_close(spike_product(spikes, weight.mT.contiguous().mT), wanted)
    for samples, neurons, outputs in ((0, 3, 2), (3, 0, 2), (3, 2, 0)):
        assert torch.equal(
            spike_product(torch.ones(samples, neurons), torch.ones(neurons, outputs)),
            torch.ones(samples, neurons) @ torch.ones(neurons, outputs),
        )


@pytest.mark.parametrize("samples", [1, 64])
def test_threads_change_no_bit(samples):
    spikes, weight = problem(samples, 1000, 3000, 0.05, torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(spike_product(spikes, weight))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_few_and_many_spikes_are_added_in_the_same_order(dtype, monkeypatch):
    spikes, weight = problem(7, 1300, 150, 0.1, dtype, graded=True)
    few = spike_product(spikes, weight)
    monkeypatch.setattr(module, "_AT_ONCE", 0)
    assert torch.equal(spike_product(spikes, weight), few)


def test_operator_passes_opcheck():
    spikes, weight = problem(5, 70, 6, 0.1)
    torch.library.opcheck(spike_rows, (spikes.requires_grad_(), weight.requires_grad_()))


def test_bad_input_is_told_in_one_line():
    spikes, weight = problem(2, 5, 3, 0.5)
    with pytest.raises(ShapeError, match="do not fit"):
        spike_product(spikes[:, 1:], weight)
    with pytest.raises(ShapeError, match="expected one type"):
        spike_product(spikes.float(), weight)
