from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from neuropil.errors import ShapeError, StateError
from neuropil.kernels.leaky import leaky, leaky_backward_op, leaky_scan, leaky_scan_reference


def problem(shape, per_neuron, seed=0):
    generator = torch.Generator().manual_seed(seed)
    decay = torch.rand(shape[2:] if per_neuron else (), generator=generator, dtype=torch.float64)
    x, state = (torch.randn(s, generator=generator, dtype=torch.float64) for s in (shape, shape[1:]))
    return [tensor.requires_grad_() for tensor in (x, state, decay)]


@pytest.mark.parametrize("per_neuron", [False, True])
def test_kernel_passes_gradcheck(per_neuron):
    assert torch.autograd.gradcheck(leaky_scan, problem((4, 2, 3), per_neuron))


@settings(max_examples=30, deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), min_size=2, max_size=4),
    per_neuron=st.booleans(),
    transpose=st.booleans(),
    seed=st.integers(0, 99),
)
def test_kernel_equals_reference_for_every_shape(shape, per_neuron, transpose, seed):
    inputs = problem(shape, per_neuron, seed)
    if transpose and len(shape) > 2:
        inputs[0] = inputs[0].detach().transpose(1, -1).contiguous().transpose(1, -1).requires_grad_()
    mine, wanted = leaky_scan(*inputs), leaky_scan_reference(*inputs)
    assert torch.equal(mine[0], wanted[0]) and torch.equal(mine[1], wanted[1])
    losses = [(sums * sums.detach().cos()).sum() + last.sum() for sums, last in (mine, wanted)]
    grads = [torch.autograd.grad(loss, inputs, materialize_grads=True) for loss in losses]
    assert_close(*grads)


def test_impulse_decays_geometrically():
    x = torch.zeros(6, 1, 1, dtype=torch.float64)
    x[0] = 1
    sums, _ = leaky_scan(x, x[0] * 0, torch.tensor(0.7, dtype=torch.float64))
    assert_close(sums.flatten(), 0.7 ** torch.arange(6, dtype=torch.float64))


def test_operators_pass_opcheck():
    x, state, decay = problem((4, 6), per_neuron=False)
    args = (x, state.detach(), decay.view(1))
    torch.library.opcheck(leaky, args)
    plain = [tensor.detach() for tensor in args]
    torch.library.opcheck(leaky_backward_op, (*plain, plain[0], plain[1], True))


def test_only_a_learned_decay_keeps_the_sums():
    x, state, decay = problem((5, 2, 3), per_neuron=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        leaky_scan(x, state, decay.detach())
    assert max(kept) <= state.numel()


def test_bad_arguments_get_one_line():
    x, state, decay = problem((5, 2, 3), per_neuron=True)
    with pytest.raises(ShapeError, match="leaky_scan: decay has shape"):
        leaky_scan(x, state, torch.ones(2))
    with pytest.raises(StateError, match=r"x needs torch.float64 of shape \[2, 3\]"):
        leaky_scan(x, state[:1], decay)
    with pytest.raises(ShapeError, match=r"\[time, batch, ...features\]"):
        leaky_scan(x[0, 0], state, decay)
