"""The compiled scan is held against the plain-torch definition, the definition against mathematics."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from neuropil.errors import ConfigError, NonFiniteError, ShapeError, StateError
from neuropil.kernels import compiled
from neuropil.kernels.lif import lif_scan, lif_scan_reference, lif_scan_static
from neuropil.kernels.lif_op import lif, lif_backward_op
from neuropil.nn.surrogate import ArcTan, FastSigmoid, Sigmoid, StraightThrough, Triangle

SURROGATES = [Sigmoid(4.0), ArcTan(2.0), FastSigmoid(5.0), Triangle(0.7), StraightThrough(0.8)]
OPTIONS = [
    {"reset": reset, "detach_reset": detach, "temporal_gradient": temporal}
    for reset, detach, temporal in itertools.product(("subtract", "zero"), (True, False), (True, False))
]


class Smooth:
    """A surrogate whose forward is smooth too: what it trains is then its true derivative."""

    scale = 1.0

    def __init__(self, surrogate):
        self.surrogate = surrogate

    def __call__(self, u):
        return self.surrogate.smooth(u)


def problem(shape=(7, 3, 5), per_neuron=False, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = shape[2:] if per_neuron else ()
    x = torch.randn(shape, generator=generator, dtype=dtype)
    membrane = 0.5 * torch.randn(shape[1:], generator=generator, dtype=dtype)
    decay = 0.3 + 0.6 * torch.rand(features, generator=generator, dtype=dtype)
    threshold = 0.3 + torch.rand(features, generator=generator, dtype=dtype)
    return [tensor.requires_grad_() for tensor in (x, membrane, decay, threshold)]


def gradients(scan, inputs, seed=1):
    spikes, final = scan(*inputs)
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(out.shape, generator=generator, dtype=out.dtype) for out in (spikes, final)]
    loss = (spikes * weights[0]).sum() + (final * weights[1]).sum()
    return spikes, final, torch.autograd.grad(loss, inputs, materialize_grads=True)


@pytest.mark.parametrize("per_neuron", [False, True])
@pytest.mark.parametrize("options", [OPTIONS[2], OPTIONS[6]], ids=["subtract", "zero"])
@pytest.mark.parametrize("surrogate", [Sigmoid(4.0), ArcTan(2.0), FastSigmoid(2.0)], ids=str)
def test_reference_with_smooth_spikes_passes_gradcheck(surrogate, options, per_neuron):
    inputs = problem((4, 2, 2), per_neuron)
    smooth = Smooth(surrogate)
    assert torch.autograd.gradcheck(
        lambda *args: lif_scan_reference(*args, smooth, **options), inputs, fast_mode=False
    )


@pytest.mark.parametrize("memory", ["save", "recompute"])
@pytest.mark.parametrize("per_neuron", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
@pytest.mark.parametrize("steps", [7, 70])
def test_kernel_equals_reference(surrogate, dtype, per_neuron, memory, steps):
    for options in OPTIONS:
        inputs = problem((steps, 3, 5), per_neuron, dtype)
        spikes, final, grads = gradients(
            lambda *a, o=options: lif_scan(*a, surrogate, memory=memory, **o), inputs
        )
        wanted = gradients(lambda *a, o=options: lif_scan_reference(*a, surrogate, **o), inputs)
        assert spikes.sum() > 0
        assert torch.equal(spikes, wanted[0]) and torch.equal(final, wanted[1])
        for mine, reference in zip(grads, wanted[2], strict=True):
            assert_close(mine, reference)


@pytest.mark.parametrize("memory", ["save", "recompute"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_static_input_equals_its_repetition(options, memory):
    _, *rest = problem((6, 3, 5), per_neuron=True)
    x = (0.5 * rest[0]).detach().requires_grad_()
    both = [
        gradients(lambda x, *a: lif_scan_static(x, 6, *a, Sigmoid(), memory=memory, **options), [x, *rest]),
        gradients(lambda x, *a: lif_scan_reference(x.expand(6, 3, 5), *a, Sigmoid(), **options), [x, *rest]),
        gradients(
            lambda x, *a: lif_scan(x.expand(6, 3, 5), *a, Sigmoid(), memory=memory, **options), [x, *rest]
        ),
    ]
    for mine in (both[0], both[2]):
        assert torch.equal(mine[0], both[1][0]) and torch.equal(mine[1], both[1][1])
        assert_close(mine[2], both[1][2])


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), min_size=2, max_size=4),
    order=st.randoms(use_true_random=False),
    stride=st.integers(1, 2),
    broadcast=st.booleans(),
    option=st.sampled_from(OPTIONS),
    memory=st.sampled_from(["save", "recompute"]),
    seed=st.integers(0, 99),
)
def test_kernel_equals_reference_for_every_shape_and_stride(
    shape, order, stride, broadcast, option, memory, seed
):
    axes = list(range(len(shape)))
    order.shuffle(axes)
    generator = torch.Generator().manual_seed(seed)
    stored = torch.randn([stride * shape[axis] for axis in axes], generator=generator)
    x = stored[tuple(slice(None, None, stride) for _ in axes)].permute(*torch.tensor(axes).argsort().tolist())
    assert list(x.shape) == shape
    features = shape[2:]
    if broadcast and features:
        features[0] = 1
    membrane = torch.randn(shape[1:], generator=generator)
    decay, threshold = torch.rand(features, generator=generator), torch.rand(features, generator=generator)
    inputs = [tensor.detach().requires_grad_() for tensor in (x, membrane, decay, threshold)]
    mine = gradients(lambda *a: lif_scan(*a, Sigmoid(), memory=memory, **option), inputs)
    wanted = gradients(lambda *a: lif_scan_reference(*a, Sigmoid(), **option), inputs)
    assert torch.equal(mine[0], wanted[0]) and torch.equal(mine[1], wanted[1])
    assert_close(mine[2], wanted[2], rtol=1e-4, atol=1e-5)


def test_threads_and_tiles_change_no_bit():
    inputs = problem((5, 40, 333), per_neuron=True, dtype=torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(gradients(lambda *a: lif_scan(*a, ArcTan(), memory="recompute"), inputs))
    finally:
        torch.set_num_threads(threads)
    reference = gradients(lambda *a: lif_scan_reference(*a, ArcTan()), inputs)
    for spikes, final, grads in results:
        assert torch.equal(spikes, reference[0]) and torch.equal(final, reference[1])
        assert torch.equal(grads[0], results[0][2][0])
        assert_close(grads, reference[2], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
def test_extreme_membranes_give_no_nan(surrogate, dtype):
    big = torch.finfo(dtype).max / 8
    x = torch.tensor([0.0, 1.0, -1.0, 1e-30, 1e4, -1e4, big, -big], dtype=dtype).view(1, 1, -1)
    inputs = [tensor.clone().requires_grad_() for tensor in (x.repeat(2, 1, 1), torch.zeros_like(x[0]))]
    one = torch.ones((), dtype=dtype)
    spikes, _ = lif_scan(*inputs, 0.5 * one, one, surrogate)
    grads = torch.autograd.grad(spikes.sum(), inputs)
    assert all(grad.isfinite().all() for grad in grads)


def test_spike_at_equality_and_closed_form_of_constant_input():
    one = torch.ones(())
    spikes, membrane = lif_scan(torch.ones(1, 1, 1), torch.zeros(1, 1), one, one, Sigmoid())
    assert spikes.item() == 1.0 and membrane.item() == 0.0
    for current, decay in itertools.product((0.15, 0.3, 0.6), (0.8, 0.9)):
        x = torch.full((60, 1, 1), current, dtype=torch.float64)
        spikes, _ = lif_scan(x, x[0] * 0, torch.tensor(decay), one, Sigmoid())
        # v[n] = current * (1 - decay^n) / (1 - decay) reaches 1 first at this n, if it ever does
        headroom = 1 - (1 - decay) / current
        assert bool(spikes.any()) == (headroom > 0)
        if headroom > 0:
            first = math.ceil(math.log(headroom) / math.log(decay))
            assert spikes.flatten().nonzero()[0].item() + 1 == first


@pytest.mark.parametrize("function", ["forward", "backward"])
def test_operators_pass_opcheck(function):
    settings_ = ("sigmoid", 4.0, False, True, True)
    x, membrane, decay, threshold = problem((4, 2, 3))
    args = (
        x.reshape(4, 6).detach().requires_grad_(),
        membrane.reshape(6).detach(),
        decay.view(1),
        threshold.view(1),
    )
    if function == "forward":
        torch.library.opcheck(lif, (*args, 4, True, *settings_))
        torch.library.opcheck(lif, (*args, 4, False, *settings_))
    else:
        plain = [tensor.detach() for tensor in args]
        upstream = torch.randn(4, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
        torch.library.opcheck(
            lif_backward_op, (plain[0], plain[0][:0], *plain[1:], *upstream, True, False, *settings_)
        )


@pytest.mark.parametrize("memory", ["save", "recompute"])
def test_compiled_graph_equals_eager(memory):
    def scan(*args):
        return lif_scan(*args, Sigmoid(), memory=memory)

    inputs = problem(per_neuron=True)
    torch._dynamo.reset()
    mine = gradients(torch.compile(scan, backend="aot_eager", fullgraph=True), inputs)
    wanted = gradients(scan, inputs)
    assert torch.equal(mine[0], wanted[0]) and torch.equal(mine[1], wanted[1])
    assert_close(mine[2], wanted[2])


def test_what_is_not_served_falls_back(monkeypatch):
    x, membrane, decay, threshold = problem(dtype=torch.float32)
    half = [tensor.detach().to(torch.bfloat16) for tensor in (x, membrane, decay, threshold)]
    assert torch.equal(lif_scan(*half, Sigmoid())[0], lif_scan_reference(*half, Sigmoid())[0])

    class Own(Sigmoid):
        def derivative(self, u):
            return torch.zeros_like(u)

    spikes, _ = lif_scan(x, membrane, decay, threshold, Own())
    assert torch.autograd.grad(spikes.sum(), x)[0].abs().max() == 0

    with_kernel = gradients(lambda *a: lif_scan(*a, Sigmoid()), [x, membrane, decay, threshold])
    monkeypatch.setattr(compiled, "HAS_NUMBA", False)
    without = gradients(lambda *a: lif_scan(*a, Sigmoid()), [x, membrane, decay, threshold])
    assert torch.equal(with_kernel[0], without[0])
    assert_close(with_kernel[2], without[2])


def test_second_derivative_is_refused_not_wrong():
    x, *rest = problem()
    spikes, _ = lif_scan(x, *rest, Sigmoid())
    (grad,) = torch.autograd.grad(spikes.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(grad.sum(), x)


def test_recompute_keeps_the_input_alone():
    x, membrane, decay, threshold = problem((97, 4, 8), dtype=torch.float32)
    for memory, extra in (("save", 3 * membrane.numel()), ("recompute", 0)):
        kept = {}

        def pack(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            lif_scan(x, membrane, decay, threshold, Sigmoid(), memory=memory)
        known = {tensor.untyped_storage().data_ptr() for tensor in (x, membrane, decay, threshold)}
        assert sum(size for where, size in kept.items() if where not in known) == extra


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"reset": "substract"}, ConfigError, "did you mean 'subtract'"),
        ({"memory": "none"}, ConfigError, "choose from recompute, save"),
        ({"x": torch.zeros(3)}, ShapeError, r"\[time, batch, ...features\]"),
        ({"membrane": torch.zeros(2, 5)}, StateError, r"x needs torch.float64 of shape \[3, 5\]"),
        ({"decay": torch.zeros(4)}, ShapeError, "decay has shape"),
    ],
)
def test_bad_arguments_get_one_line(change, error, words):
    names = ("x", "membrane", "decay", "threshold")
    arguments = dict(zip(names, problem(), strict=True)) | {"surrogate": Sigmoid()} | change
    with pytest.raises(error, match=words) as caught:
        lif_scan(**arguments)
    assert "\n" not in str(caught.value)


def test_numba_is_imported_at_the_first_scan_only():
    code = (
        "import sys, torch; from neuropil.nn.lif import LIF; assert 'numba' not in sys.modules;"
        "LIF()(torch.ones(2, 1, 1)); assert 'numba' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.getcwd()})


def test_kernels_run_without_a_writable_cache():
    code = (
        "import torch, numba.core.caching as caching; caching.CacheImpl._locator_classes = []\n"
        "from neuropil.nn.lif import LIF\n"
        "assert LIF()(torch.ones(2, 1, 1))[0].sum() == 2"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.getcwd()})


class Steep(Sigmoid):
    """Has no compiled derivative, so that plain torch answers."""


@pytest.mark.parametrize("surrogate", [Sigmoid(4.0), Steep(4.0)], ids=["compiled", "plain"])
@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_owner_refuses_a_last_membrane_that_is_not_finite(bad, learns, surrogate):
    x = torch.zeros(5, 3, 700)
    x[1, 2, 451] = bad
    x.requires_grad_(learns)
    given = x, None, torch.tensor(0.5), torch.tensor(1.0), surrogate
    with pytest.raises(NonFiniteError, match="Cell: membrane is NaN or infinite"):
        lif_scan(*given, owner="Cell", reset="subtract")
    _, final = lif_scan(*given)
    assert final.isfinite().sum() == final.numel() - 1


def test_membranes_whose_sum_overflows_are_finite():
    huge = torch.full((1, 2, 900), 3e38)
    _, final = lif_scan(huge, None, torch.tensor(0.5), torch.tensor(1.0), Sigmoid(), owner="Cell")
    assert_close(final, huge[0])
