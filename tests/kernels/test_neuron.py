"""Scans of neurons with several states are held against plain torch, plain torch against finite differences."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.kernels import compiled
from neuropil.kernels.adaptive import adaptive_scan, adaptive_scan_reference
from neuropil.kernels.adex import adex_scan, adex_scan_reference
from neuropil.kernels.izhikevich import izhikevich_scan, izhikevich_scan_reference
from neuropil.kernels.lif import lif_scan
from neuropil.kernels.neuron_op import neuron, neuron_backward_op
from neuropil.kernels.quadratic import quadratic_scan, quadratic_scan_reference
from neuropil.kernels.refractory import refractory_scan, refractory_scan_reference
from neuropil.kernels.resonator import resonator_scan, resonator_scan_reference
from neuropil.kernels.synaptic import synaptic_scan, synaptic_scan_reference
from neuropil.nn.surrogate import ArcTan, FastSigmoid, Sigmoid, StraightThrough, Triangle
from tests.kernels.test_lif import Smooth, gradients

SCANS = {
    "synaptic": (synaptic_scan, synaptic_scan_reference),
    "adaptive": (adaptive_scan, adaptive_scan_reference),
    "izhikevich": (izhikevich_scan, izhikevich_scan_reference),
    "quadratic": (quadratic_scan, quadratic_scan_reference),
    "adex": (adex_scan, adex_scan_reference),
    "resonator": (resonator_scan, resonator_scan_reference),
    "refractory": (refractory_scan, refractory_scan_reference),
}
RANGES = {
    "synaptic": ((0.3, 0.9), (0.3, 0.9), (0.3, 1.3)),
    "adaptive": ((0.3, 0.9), (0.3, 1.3), (0.5, 0.95), (0.1, 0.5)),
    "quadratic": ((0.2, 0.5), (-0.5, 0.0), (0.4, 0.8), (0.8, 1.5), (-0.8, -0.2), (0.9, 1.4)),
    "adex": (
        *((0.2, 0.4), (0.5, 1.0), (-0.5, 0.0), (0.3, 0.6), (0.4, 0.6), (0.1, 0.3), (0.1, 0.5), (0.1, 0.3)),
        *((-0.5, 0.0), (1.0, 1.3)),
    ),
    "resonator": ((0.3, 0.8), (0.3, 0.8), (-0.5, 0.2), (0.4, 1.0)),
    "refractory": ((0.3, 0.9), (0.3, 1.0), (2.0, 2.0)),
}
every_scan = pytest.mark.parametrize("name", SCANS)
SURROGATES = [Sigmoid(4.0), ArcTan(2.0), FastSigmoid(5.0), Triangle(0.7), StraightThrough(0.8)]


def options_of(name):
    resets = ("subtract", "zero") if name in ("synaptic", "adaptive", "refractory") else (None,)
    for reset, detach, temporal in itertools.product(resets, (True, False), (True, False)):
        option = {"detach_reset": detach, "temporal_gradient": temporal}
        yield option | ({"reset": reset} if reset else {})


def problem(name, shape=(7, 3, 5), per_neuron=False, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = shape[2:] if per_neuron else ()

    def normal(shape, scale=1.0, mean=0.0):
        return mean + scale * torch.randn(shape, generator=generator, dtype=torch.float64)

    def between(low, high):
        return low + (high - low) * torch.rand(features, generator=generator, dtype=torch.float64)

    if name == "izhikevich":
        tensors = [normal(shape, 20, 10), normal(shape[1:], 5, -62), normal(shape[1:], 2, -13)]
        ranges = ((0.02, 0.1), (0.2, 0.25), (-65, -50), (2, 8), (25, 30), (0.4, 0.6))
    else:
        tensors = [normal(shape), normal(shape[1:], 0.5), normal(shape[1:], 0.5)]
        ranges = RANGES[name]
        if name == "quadratic":
            tensors.pop()
        elif name == "refractory":
            tensors[2] = tensors[2].abs().mul(4).floor()
        elif name == "adex":
            tensors[0] += 1
    tensors += [between(*limits) for limits in ranges]
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def gradients_of(scan, inputs):
    def two(*args):  # the helper knows a scan of one state
        spikes, *states = scan(*args)
        return spikes, torch.stack(states)

    return gradients(two, inputs)


def same_states(name, mine, wanted):
    """The same bits, but for the kernel's own exponential."""
    if name != "adex":
        assert torch.equal(mine, wanted)
    else:
        loose = 2e-4 if mine.dtype == torch.float32 else 1e-10
        assert_close(mine, wanted, rtol=loose, atol=loose)


@every_scan
@pytest.mark.parametrize("per_neuron", [False, True])
def test_reference_with_smooth_spikes_passes_gradcheck(name, per_neuron):
    if name == "refractory":
        pytest.skip("waiting follows whole spikes; its gradient is checked against the leaky neuron's")
    inputs = problem(name, (4, 2, 2), per_neuron)
    smooth = Smooth(Sigmoid(0.05 if name == "izhikevich" else 4.0))
    for option in options_of(name):
        if option["detach_reset"] or not option["temporal_gradient"]:
            continue
        assert torch.autograd.gradcheck(
            lambda *args, o=option: SCANS[name][1](*args, smooth, **o), inputs, atol=1e-4
        )


@every_scan
@pytest.mark.parametrize("memory", ["save", "recompute"])
@pytest.mark.parametrize("per_neuron", [False, True])
@pytest.mark.parametrize("steps", [7, 70])
def test_kernel_equals_reference(name, per_neuron, memory, steps):
    scan, reference = SCANS[name]
    for surrogate, dtype in itertools.product(SURROGATES, (torch.float32, torch.float64)):
        for option in options_of(name):
            inputs = problem(name, (steps, 3, 5), per_neuron, dtype)
            mine = gradients_of(lambda *a, s=surrogate, o=option: scan(*a, s, memory=memory, **o), inputs)
            wanted = gradients_of(lambda *a, s=surrogate, o=option: reference(*a, s, **o), inputs)
            assert wanted[0].sum() > 0
            assert torch.equal(mine[0], wanted[0])
            same_states(name, mine[1], wanted[1])
            for left, right in zip(mine[2], wanted[2], strict=True):
                size = right.abs().max().item()
                loose = 2e-3 if dtype == torch.float32 else 1e-9  # long Izhikevich gradients cancel
                assert_close(left, right, rtol=loose, atol=loose * max(size, 1e-3))


@every_scan
@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), min_size=2, max_size=4),
    order=st.randoms(use_true_random=False),
    per_neuron=st.booleans(),
    memory=st.sampled_from(["save", "recompute"]),
    seed=st.integers(0, 99),
)
def test_every_shape_and_stride(name, shape, order, per_neuron, memory, seed):
    x, *rest = problem(name, shape, per_neuron, seed=seed)
    axes = list(range(len(shape)))
    order.shuffle(axes)
    back = torch.tensor(axes).argsort().tolist()
    inputs = [x.detach().permute(axes).contiguous().permute(back).requires_grad_(), *rest]
    scan, reference = SCANS[name]
    mine = gradients_of(lambda *a: scan(*a, Sigmoid(), memory=memory), inputs)
    wanted = gradients_of(lambda *a: reference(*a, Sigmoid()), inputs)
    assert torch.equal(mine[0], wanted[0])
    same_states(name, mine[1], wanted[1])
    assert_close(mine[2], wanted[2], rtol=1e-9, atol=1e-9)


@every_scan
def test_threads_and_tiles_change_no_bit(name):
    inputs = problem(name, (5, 40, 333), per_neuron=True, dtype=torch.float32)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(gradients_of(lambda *a: SCANS[name][0](*a, ArcTan(), memory="recompute"), inputs))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert torch.equal(other[0], results[0][0]) and torch.equal(other[1], results[0][1])
        assert all(torch.equal(a, b) for a, b in zip(other[2], results[0][2], strict=True))


@every_scan
def test_operators_pass_opcheck(name):
    x, *rest = [tensor.detach() for tensor in problem(name, (4, 2, 3))]
    many = 1 if name == "quadratic" else 2
    state, parameters = torch.stack(rest[:many]).view(many, 6), torch.stack(rest[many:])[:, None]
    x = x.reshape(4, 6)
    setting = (name, "sigmoid", 4.0, False, True, True)
    torch.library.opcheck(neuron, (x.clone().requires_grad_(), state, parameters, True, *setting))
    upstream = torch.randn_like(x), torch.randn_like(state)
    plain = (x, x.new_empty(0, many, 6), state, parameters, *upstream)
    torch.library.opcheck(neuron_backward_op, (*plain, True, *setting))
    torch.library.opcheck(neuron_backward_op, (*plain, False, *setting))


@every_scan
@pytest.mark.parametrize("memory", ["save", "recompute"])
def test_compiled_graph_equals_eager(name, memory):
    def scan(*args):
        return SCANS[name][0](*args, Sigmoid(), memory=memory)

    inputs = problem(name, per_neuron=True)
    torch._dynamo.reset()
    mine = gradients_of(torch.compile(scan, backend="aot_eager", fullgraph=True), inputs)
    wanted = gradients_of(scan, inputs)
    assert torch.equal(mine[0], wanted[0]) and torch.equal(mine[1], wanted[1])
    assert_close(mine[2], wanted[2])


@every_scan
def test_what_is_not_served_falls_back(name, monkeypatch):
    inputs = problem(name)
    with_kernel = gradients_of(lambda *a: SCANS[name][0](*a, Sigmoid()), inputs)
    monkeypatch.setattr(compiled, "HAS_NUMBA", False)
    without = gradients_of(lambda *a: SCANS[name][0](*a, Sigmoid()), inputs)
    assert torch.equal(with_kernel[0], without[0])
    assert_close(with_kernel[2], without[2])


def test_impulse_response_of_a_synapse_is_the_closed_form():
    fast, slow = (torch.tensor(decay, dtype=torch.float64) for decay in (0.6, 0.9))
    n = torch.arange(1, 31, dtype=torch.float64)
    for steps in (1, 2, 30):
        x = torch.zeros(steps, 1, 1, dtype=torch.float64)
        x[0] = 1
        rest, high = torch.zeros(1, 1, dtype=torch.float64), torch.tensor(99.0)
        _, current, membrane = synaptic_scan(x, rest, rest, fast, slow, high, Sigmoid())
        wanted = ((fast**n - slow**n) / (fast - slow))[steps - 1]
        assert_close(membrane.item(), wanted.item(), rtol=1e-6, atol=0)
        assert_close(current.item(), fast.item() ** (steps - 1), rtol=1e-6, atol=0)


def test_adaptation_settles_where_the_raised_threshold_meets_the_drive():
    one, x = torch.tensor(1.0), torch.full((4000, 1, 1), 0.5, dtype=torch.float64)
    rest, rho, beta = torch.zeros(1, 1, dtype=torch.float64), 0.99, 0.05
    spikes, *_ = adaptive_scan(x, rest, rest, one, one, torch.tensor(rho), torch.tensor(beta), Sigmoid())
    # without a leak the drive per step is spent on resets: rate * (1 + beta * rate / (1 - rho)) = 0.5
    scale = beta / (1 - rho)
    wanted = (-1 + (1 + 4 * scale * 0.5) ** 0.5) / (2 * scale)
    assert abs(spikes[2000:].mean().item() - wanted) < 0.01
    plain = adaptive_scan(x, rest, rest, one, one, one * rho, 0 * one, Sigmoid())[0]
    assert_close(plain.mean().item(), 0.5)


def test_regular_spiking_rests_and_bursts_as_the_equations_say():
    numbers = [torch.tensor(value, dtype=torch.float64) for value in (0.02, 0.2, -65.0, 8.0, 30.0, 0.5)]
    # without input the fixed point solves 0.04 v^2 + (5 - b) v + 140 = 0, w = b v; the lower root is stable
    v = (-4.8 - (4.8**2 - 4 * 0.04 * 140) ** 0.5) / 0.08
    rest = torch.full((1, 1), v, dtype=torch.float64)
    spikes, membrane, recovery = izhikevich_scan(
        torch.zeros(400, 1, 1).double(), rest, 0.2 * rest, *numbers, Sigmoid()
    )
    assert spikes.sum() == 0
    assert_close(membrane.item(), v, rtol=1e-9, atol=0)
    assert_close(recovery.item(), 0.2 * v, rtol=1e-9, atol=0)
    spikes, *_ = izhikevich_scan(
        torch.full((2000, 1, 1), 10.0).double(), rest, 0.2 * rest, *numbers, Sigmoid()
    )
    gaps = spikes.flatten().nonzero().flatten().diff()
    assert len(gaps) > 5 and gaps[0] < gaps[-1]  # regular spiking cells slow down


@every_scan
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda i: ([torch.zeros(3), *i[1:]], {}), ShapeError, r"\[time, batch, ...features\]"),
        (lambda i: ([i[0], i[1][:1], *i[2:]], {}), StateError, r"x needs torch.float64 of shape \[3, 5\]"),
        (lambda i: ([*i[:-1], torch.zeros(4)], {}), ShapeError, r"has shape \[4\], expected one number"),
        (lambda i: (i, {"memory": "none"}), ConfigError, "choose from recompute, save"),
    ],
)
def test_bad_arguments_get_one_line(name, change, error, words):
    inputs, options = change(problem(name))
    with pytest.raises(error, match=words) as caught:
        SCANS[name][0](*inputs, Sigmoid(), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_gradients_of_a_neuron_that_never_rests_are_the_leaky_ones(reset):
    x, membrane, _, decay, threshold, _ = problem("refractory", (20, 2, 3))
    wanted = gradients(
        lambda *a: lif_scan(*a, Sigmoid(), reset=reset, detach_reset=False), [x, membrane, decay, threshold]
    )
    none, zero = torch.zeros(()).double(), torch.zeros(2, 3).double()
    mine = gradients(
        lambda x, v, d, h: refractory_scan(
            x, v, zero, d, h, none, Sigmoid(), reset=reset, detach_reset=False
        )[:2],
        [x, membrane, decay, threshold],
    )
    assert torch.equal(mine[0], wanted[0])
    assert_close(mine[2], wanted[2])


def test_while_a_neuron_rests_its_gradient_waits_with_it():
    x = torch.tensor([1.0, 0.3, 0.4, 0.5], dtype=torch.float64).view(4, 1, 1).requires_grad_()
    one, rest = torch.tensor(1.0).double(), torch.zeros(1, 1).double()
    _, membrane, waiting = refractory_scan(x, rest, rest, 0.5 * one, one, 2 * one, Sigmoid())
    (gradient,) = torch.autograd.grad(membrane.sum(), x)
    # the two steps after the spike are lost; the last one adds to half of what the spike left
    assert gradient.flatten().tolist() == [0.5, 0.0, 0.0, 1.0] and waiting.item() == 0
