"""The compiled runs are held against plain torch, plain torch against closed forms and the echo-state property."""

from __future__ import annotations

import math
import os
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.kernels import compiled, reservoir_op
from neuropil.kernels.compiled import kernel, run_over
from neuropil.kernels.reservoir import (
    leaky_reservoir_reference,
    leaky_reservoir_scan,
    spiking_reservoir_reference,
    spiking_reservoir_scan,
)
from neuropil.kernels.reservoir_compiled import leaky_run, leaky_shared, tanh_row
from neuropil.kernels.reservoir_op import _chunks, leaky_reservoir, spiking_reservoir
from tests.forked import is_same_in_a_fork

warnings.filterwarnings("ignore", message="Sparse CS. tensor support is in beta state")


@kernel
def tanh_of(row):
    tanh_row(row)


def problem(steps=12, batch=2, units=30, inputs=3, density=0.2, dtype=torch.float64, seed=0):
    """Numbers on a grid of 1/64, so that every order of summation gives the same spikes."""
    generator = torch.Generator().manual_seed(seed)

    def grid(*shape, scale=1.0):
        return (scale * 64 * torch.randn(shape, generator=generator)).round().to(dtype) / 64

    mask = torch.rand(units, units, generator=generator) < density
    connections = grid(units, units, scale=1 / math.sqrt(max(1.0, units * density))) * mask
    return grid(steps, batch, inputs), grid(batch, units), connections, grid(units, inputs), grid(units)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_tanh_is_exact_to_rounding(dtype):
    tiny = torch.logspace(-30, 0, 500, dtype=dtype)
    x = torch.cat(
        [tiny, -tiny, torch.linspace(-30, 30, 20001, dtype=dtype), torch.tensor([1e30, -1e30]).to(dtype)]
    )
    mine = x.clone()
    tanh_of(mine.numpy())
    eps = torch.finfo(dtype).eps
    assert_close(mine.double(), torch.tanh(x.double()), rtol=4 * eps, atol=0)
    special = torch.tensor([math.inf, -math.inf, math.nan, 0.0], dtype=dtype)
    tanh_of(special.numpy())
    assert special[:2].tolist() == [1.0, -1.0] and special[2].isnan() and special[3] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("leak", [1.0, 0.3, torch.linspace(0.1, 1, 30)], ids=["none", "one", "each"])
def test_leaky_run_equals_the_equation(leak, sparse, dtype):
    x, state, connections, input_weight, bias = problem(dtype=dtype)
    given_ = connections.to_sparse_csr() if sparse else connections
    mine = leaky_reservoir_scan(x, state, given_, input_weight, bias, leak)
    wanted = [state.numpy()]
    leak = torch.as_tensor(leak, dtype=dtype).numpy()
    for u in x.numpy():
        drive = wanted[-1] @ connections.numpy().T + u @ input_weight.numpy().T + bias.numpy()
        wanted.append((1 - leak) * wanted[-1] + leak * np.tanh(drive))
    tolerance = 2e-6 if dtype == torch.float32 else 1e-14
    assert_close(mine, torch.from_numpy(np.stack(wanted[1:])), rtol=0, atol=tolerance)
    assert mine.dtype == dtype


@settings(max_examples=40, deadline=None)
@given(
    steps=st.integers(0, 4),
    batch=st.integers(0, 3),
    units=st.integers(1, 40),
    inputs=st.integers(0, 3),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    strided=st.booleans(),
    seed=st.integers(0, 99),
)
def test_runs_equal_the_references_for_every_shape(steps, batch, units, inputs, density, strided, seed):
    x, state, connections, input_weight, bias = problem(steps, batch, units, inputs, density, seed=seed)
    if strided:
        x, state, input_weight = (
            tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in (x, state, input_weight)
        )
    mine = leaky_reservoir_scan(x, state, connections, input_weight, bias, 0.4)
    wanted = leaky_reservoir_reference(
        x, state, connections, input_weight, bias, torch.tensor([0.4], dtype=torch.float64)
    )
    assert_close(mine, wanted, rtol=0, atol=1e-13)
    spikes = (state > 0.5).double()
    kept = state.clone()
    for reset in ("subtract", "zero"):
        run = spiking_reservoir_scan(
            x, state, spikes, connections, input_weight, bias, decay=0.5, threshold=0.75, reset=reset
        )
        decay, threshold = torch.tensor([0.5]).double(), torch.tensor([0.75]).double()
        wanted = spiking_reservoir_reference(
            x, state, spikes, connections, input_weight, bias, decay, threshold, reset
        )
        assert torch.equal(run.spikes, wanted.spikes) and torch.equal(run.membrane, wanted.membrane)
    assert torch.equal(state, kept)


def test_parts_of_a_run_equal_the_run():
    x, state, *weights = problem(steps=9)
    whole = leaky_reservoir_scan(x, state, *weights, 0.3)
    first = leaky_reservoir_scan(x[:4], state, *weights, 0.3)
    assert torch.equal(whole, torch.cat([first, leaky_reservoir_scan(x[4:], first[-1], *weights, 0.3)]))
    rest = torch.zeros_like(state)
    spiking = spiking_reservoir_scan(x, state, rest, *weights)
    start = spiking_reservoir_scan(x[:4], state, rest, *weights)
    end = spiking_reservoir_scan(x[4:], start.membrane, start.spikes[-1], *weights)
    assert spiking.spikes.sum() > 0
    assert torch.equal(spiking.spikes, torch.cat([start.spikes, end.spikes]))
    assert torch.equal(spiking.membrane, end.membrane)


def test_echoes_of_the_start_fade_as_the_contraction_says():
    x, state, connections, input_weight, bias = problem(steps=60, units=40, density=0.3)
    connections *= 0.8 / torch.linalg.matrix_norm(connections, 2)
    leak = 0.5
    runs = [leaky_reservoir_scan(x, s, connections, input_weight, bias, leak) for s in (state, -3 * state)]
    apart = torch.linalg.vector_norm(runs[0] - runs[1], dim=-1)
    # |tanh'| <= 1: each step shrinks the distance at least by (1 - leak) + leak * |W|
    bound = (
        torch.linalg.vector_norm(4 * state, dim=-1)
        * (1 - leak + leak * 0.8) ** torch.arange(1.0, 61.0)[:, None]
    )
    assert (apart <= bound).all() and (apart[-1] < 1e-3 * apart[0]).all()


def test_chain_of_spiking_units_passes_one_spike_along():
    units, one = 6, torch.ones(1, 1)
    chain = torch.diag(torch.full((units - 1,), 1.0), -1)
    into = torch.zeros(units, 1)
    into[0] = 1
    x = torch.cat([one, torch.zeros(units - 1, 1)]).view(units, 1, 1)
    rest = torch.zeros(1, units)
    run = spiking_reservoir_scan(x, rest, rest, chain, into, decay=0.0)
    assert torch.equal(run.spikes[:, 0], torch.eye(units))


def on_threads(count, *arguments):
    """The run, whose steps are shared as soon as there are more threads than samples, however short they are."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reservoir_op, "_WORTH_SHARING", 1)
        try:
            torch.set_num_threads(count)
            return leaky_reservoir_scan(*arguments)
        finally:
            torch.set_num_threads(threads)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.integers(1, 20),
    batch=st.integers(1, 5),
    units=st.sampled_from([1, 2, 15, 16, 33, 50, 200]),
    inputs=st.integers(0, 2),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    threads=st.integers(2, 4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    team=st.booleans(),
    seed=st.integers(0, 99),
)
def test_same_bits_on_any_number_of_threads(steps, batch, units, inputs, density, threads, dtype, team, seed):
    arguments = *problem(steps, batch, units, inputs, density, dtype, seed), torch.linspace(0.1, 1, units)
    wanted = on_threads(1, *arguments)
    with pytest.MonkeyPatch.context() as patch:
        if not team:
            patch.setattr(compiled, "find_team", lambda process: None)
        assert torch.equal(on_threads(threads, *arguments), wanted)


def test_threads_share_the_steps_of_one_sample():
    steps, units = 3, 1000
    x, state, connections, *weights = problem(steps, 1, units, density=0.02, dtype=torch.float32)
    calls = []

    def spy(function, lanes, *arguments, **options):
        calls.append((function, lanes))
        run_over(function, lanes, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reservoir_op, "run_over", spy)
        for batch in (1, 2, 3):
            repeated = [x.expand(-1, batch, -1), state.expand(batch, -1), connections, *weights]
            on_threads(2, *repeated)
    assert calls == [(leaky_shared, 2), (leaky_run, 2), (leaky_run, 3)]


def test_chunks_are_whole_lines_and_about_the_same_work():
    counts = np.r_[np.full(200, 40), np.zeros(800, int)]  # the first units have all the connections
    offsets = np.append(0, counts.cumsum()).astype(np.uint64)
    bounds = _chunks(offsets, 4)
    assert bounds[0] == 0 and bounds[-1] == 1000 and (bounds[:-1] % 16 == 0).all()
    work = np.diff(offsets[bounds].astype(int)) + reservoir_op._UNIT * np.diff(bounds)
    assert (abs(work - work.mean()) <= 2 * 16 * 48).all()
    assert _chunks(np.zeros(3, np.uint64), 4).tolist() == [0, 0, 0, 0, 2]  # fewer units than chunks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_shares_steps_on_threads_of_its_own():
    setup = """
        from neuropil.kernels.reservoir import leaky_reservoir_scan
        g = torch.Generator().manual_seed(0)
        draw = lambda *shape: torch.randn(shape, generator=g)
        dense = draw(300, 300) / 10
        connections = (dense * (dense > 0.1)).to_sparse_csr()  # here: torch's threads are gone in the child
        arguments = draw(20, 1, 2), draw(1, 300), connections, draw(300, 2)
    """
    assert is_same_in_a_fork(setup, "leaky_reservoir_scan(*arguments)")


@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_take_the_plain_path(sparse):
    x, state, connections, input_weight, bias = problem(4, 2, 5, 2, 0.6)
    if sparse:
        connections = connections.to_sparse_csr()
    leaves = [tensor.requires_grad_() for tensor in (x, state, input_weight, bias)]
    assert torch.autograd.gradcheck(
        lambda x, s, w, b: leaky_reservoir_scan(x, s, connections, w, b, 0.3), leaves
    )


def test_operators_pass_opcheck_and_compile():
    x, state, connections, input_weight, bias = problem(5, 2, 8)
    rows, columns = connections.to_sparse_csr(), connections.to_sparse_csc()
    rows = [part.clone() for part in (rows.crow_indices(), rows.col_indices(), rows.values())]
    columns = [part.clone() for part in (columns.ccol_indices(), columns.row_indices(), columns.values())]
    one = torch.ones(8, dtype=torch.float64)
    leaky = x, state, *rows, input_weight, bias, 0.5 * one
    torch.library.opcheck(leaky_reservoir, leaky)
    parts = *columns, input_weight, None
    torch.library.opcheck(spiking_reservoir, (x, state, (state > 0).double(), *parts, 0.5 * one, one, True))
    torch._dynamo.reset()
    graph = torch.compile(leaky_reservoir, backend="aot_eager", fullgraph=True)
    assert torch.equal(graph(*leaky), leaky_reservoir(*leaky))


def test_what_is_not_served_falls_back(monkeypatch):
    x, state, *weights = problem()
    with_kernel = leaky_reservoir_scan(x, state, *weights, 0.3)
    monkeypatch.setattr(compiled, "HAS_NUMBA", False)
    assert_close(leaky_reservoir_scan(x, state, *weights, 0.3), with_kernel, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": torch.zeros(3, 2)}, ShapeError, r"expected floats \[time, batch, inputs\]"),
        (
            {"connections": torch.zeros(3, 4)},
            ShapeError,
            r"connections has shape \[3, 4\], expected \[30, 30\]",
        ),
        ({"bias": torch.zeros(3)}, ShapeError, r"bias has shape \[3\], expected \[30\]"),
        ({"state": torch.zeros(30)}, StateError, r"need torch.float64 of shape \[2, 30\]"),
        ({"leak": 0.0}, ConfigError, r"leak is \[0.0\], expected numbers in \(0, 1\]"),
        ({"leak": torch.ones(7)}, ShapeError, "leak has shape"),
    ],
)
def test_bad_arguments_get_one_line(change, error, words):
    names = ("x", "state", "connections", "input_weight", "bias")
    with pytest.raises(error, match=words) as caught:
        leaky_reservoir_scan(**dict(zip(names, problem(), strict=True)) | change)
    assert "\n" not in str(caught.value)


def test_unknown_reset_is_refused():
    x, state, *weights = problem()
    with pytest.raises(ConfigError, match="did you mean 'subtract'"):
        spiking_reservoir_scan(x, state, state, *weights, reset="substract")
