"""The compiled liquid is held against plain torch, plain torch against closed forms and Brian2."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.kernels import compiled
from neuropil.kernels.liquid import (
    LiquidNeuron,
    liquid_numbers,
    liquid_reference,
    liquid_rest,
    liquid_scan,
)
from neuropil.kernels.liquid_op import liquid
from tests.peers import ask_peer

DRIVEN = LiquidNeuron(current=130.0)


def network(steps=200, batch=2, units=40, inputs=5, longest=4, dtype=torch.float64, seed=0):
    """Conductances on a grid of 1/8 nS, so that every order of summation gives the same number."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(units, units, generator=generator) < 0.2
    strength = torch.where(torch.arange(units) < 0.8 * units, 3.0, -20.0)
    weights = ((8 * strength * torch.rand(units, units, generator=generator)).round() / 8 * mask).to(dtype)
    into = (torch.randn(units, inputs, generator=generator) * 64).round().to(dtype) / 8
    x = (torch.rand(steps, batch, inputs, generator=generator) < 0.1).to(dtype)
    delays = torch.randint(1, longest + 1, (units, units), generator=generator)
    return x, weights, into, delays


def reference(x, weights, into, delays=None, neuron=DRIVEN, dt=0.5, state=None):
    numbers = liquid_numbers(neuron, len(weights), dt).to(x.dtype)
    return liquid_reference(
        x, weights, into, numbers, state or liquid_rest(x, len(weights), neuron, delays), delays
    )


@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_kernel_equals_reference(dtype, sparse, delayed):
    x, weights, into, delays = network(dtype=dtype)
    delays = delays if delayed else None
    given_ = weights.to_sparse_csr() if sparse else weights
    mine = liquid_scan(x, given_, into, DRIVEN, delays=delays, dt=0.5)
    wanted = reference(x, weights, into, delays)
    assert 0.005 < wanted.spikes.mean() < 0.2
    assert torch.equal(mine.spikes, wanted.spikes)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9  # millivolts and nanosiemens
    assert_close(tuple(mine.state), tuple(wanted.state), rtol=0, atol=tolerance)


@settings(max_examples=30, deadline=None)
@given(
    steps=st.integers(0, 6),
    batch=st.integers(0, 3),
    units=st.integers(1, 9),
    inputs=st.integers(0, 3),
    longest=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_every_shape_equals_the_reference(steps, batch, units, inputs, longest, seed):
    x, weights, into, delays = network(steps, batch, units, inputs, longest, seed=seed)
    x = x * torch.tensor([-1.0, 0.5]).double()[torch.arange(steps) % 2, None, None]  # inputs of both signs
    mine = liquid_scan(x, weights, into, DRIVEN, delays=delays)
    wanted = reference(x, weights, into, delays, dt=1.0)
    assert torch.equal(mine.spikes, wanted.spikes)
    assert_close(tuple(mine.state), tuple(wanted.state), rtol=0, atol=1e-10)


def test_parts_of_a_run_equal_the_run():
    x, weights, into, delays = network()
    whole = liquid_scan(x, weights, into, DRIVEN, delays=delays)
    first = liquid_scan(x[:77], weights, into, DRIVEN, delays=delays)
    kept = tuple(tensor.clone() for tensor in first.state)
    second = liquid_scan(x[77:], weights, into, DRIVEN, first.state, delays=delays)
    assert torch.equal(torch.cat([first.spikes, second.spikes]), whole.spikes)
    assert all(torch.equal(a, b) for a, b in zip(second.state, whole.state, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first.state, kept, strict=True)), "the state given is kept"


def test_a_current_makes_the_neuron_fire_as_the_closed_form_says():
    neuron, dt = LiquidNeuron(current=150.0, refractory=3.0), 0.1
    none, x = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(3000, 1, 1, dtype=torch.float64)
    spikes = liquid_scan(x, none, none, neuron, dt=dt).spikes.flatten().nonzero().flatten()
    tau = neuron.capacitance / neuron.leak  # 20 ms; the current alone would lift the membrane by 15 mV
    rise = tau * math.log(15 / (15 - 10))
    assert spikes[0] == math.ceil(rise / dt) - 1
    assert set(spikes.diff().tolist()) == {math.ceil(rise / dt) + 30}


def test_held_conductances_relax_on_the_exact_exponential_at_any_step():
    neuron = LiquidNeuron(threshold=1e3, excitatory_time=1e15, inhibitory_time=1e15)
    into, none = torch.tensor([[4.0, -7.0]], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    for dt, steps in ((0.5, 40), (20.0, 1), (1e4, 1)):
        x = torch.zeros(steps, 1, 2, dtype=torch.float64)
        x[0] = 1
        total = 10 + 4 + 7
        balance = (10 * -60 + 4 * 0 + 7 * -80) / total
        wanted = balance + (-60 - balance) * math.exp(-dt * steps * total / 200)
        run = liquid_scan(x, none, into, neuron, dt=dt)
        assert_close(run.state.membrane.item(), wanted, rtol=1e-12, atol=0)


def test_error_is_of_first_order_in_the_step():
    neuron = LiquidNeuron(threshold=1e3)
    into, none = torch.full((1, 1), 30.0, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)

    def after_10_ms(dt):
        x = torch.zeros(round(10 / dt), 1, 1, dtype=torch.float64)
        x[0] = 1
        return liquid_scan(x, none, into, neuron, dt=dt).state.membrane.item()

    from scipy.integrate import solve_ivp

    def slope(t, v):
        return (10 * (-60 - v) + 30 * math.exp(-t / 5) * (0 - v)) / 200

    exact = solve_ivp(slope, (0, 10), [-60.0], rtol=1e-11, atol=1e-11).y[0, -1]
    errors = [abs(after_10_ms(dt) - exact) for dt in (0.2, 0.1, 0.05)]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(0.9 < order < 1.1 for order in orders)


@settings(max_examples=40, deadline=None)
@given(strength=st.floats(0, 1e4), dt=st.floats(0.01, 1e3), seed=st.integers(0, 99))
def test_no_input_and_no_step_drives_a_membrane_beyond_its_reversals(strength, dt, seed):
    generator = torch.Generator().manual_seed(seed)
    x, into = torch.randn(30, 1, 3, generator=generator).double(), torch.randn(4, 3, generator=generator)
    neuron = LiquidNeuron(threshold=1e3)
    none = torch.zeros(4, 4, dtype=torch.float64)
    run = liquid_scan(x, none, strength * into.double(), neuron, dt=dt)
    assert ((run.state.membrane >= -80 - 1e-9) & (run.state.membrane <= 1e-9)).all()


def test_a_spike_arrives_after_its_delay_and_inhibits_where_the_weight_is_negative():
    weights = torch.zeros(3, 3, dtype=torch.float64)
    weights[1, 0], weights[2, 0] = 500.0, -5.0
    delays = torch.ones(3, 3, dtype=torch.long)
    delays[1, 0], delays[2, 0] = 7, 3
    into = torch.tensor([[500.0], [0.0], [0.0]], dtype=torch.float64)
    x = torch.zeros(9, 1, 1, dtype=torch.float64)
    x[0] = 1
    neuron = LiquidNeuron(refractory=50.0)
    run = liquid_scan(x, weights, into, neuron, delays=delays)
    assert run.spikes[:, 0].nonzero().tolist() == [[0, 0], [7, 1]]
    sunk = [
        liquid_scan(x[: t + 1], weights, into, delays=delays).state.membrane[0, 2] < -60 for t in range(5)
    ]
    assert sunk == [False, False, False, True, True]


@pytest.mark.peer
def test_a_recurrent_network_fires_as_in_brian2():
    x, weights, into, delays = network(steps=400, batch=1, units=60, seed=3)
    dt, neuron = 0.1, DRIVEN
    times, sources = x[:, 0].nonzero(as_tuple=True)
    found = ask_peer(
        "brian2",
        """
        import brian2 as b
        b.prefs.codegen.target = "numpy"
        dt = float(given["dt"]) * b.ms
        b.defaultclock.dt = dt
        units, inputs = given["into"].shape
        space = {"C": 200 * b.pF, "g": 10 * b.nS, "E": -60 * b.mV, "I": 130 * b.pA,
                 "Ee": 0 * b.mV, "Ei": -80 * b.mV, "te": 5 * b.ms, "ti": 10 * b.ms}
        cells = b.NeuronGroup(units, '''
            dv/dt = (g * (E - v) + ge * (Ee - v) + gi * (Ei - v) + I) / C : volt (unless refractory)
            dge/dt = -ge / te : siemens
            dgi/dt = -gi / ti : siemens''', threshold="v >= -50 * mV", reset="v = -60 * mV",
            refractory=5 * b.ms + dt, method="exponential_euler", namespace=space)
        cells.v = -60 * b.mV
        def wire(source, weights, delays):
            for sign, name in ((1, "ge"), (-1, "gi")):
                post, pre = (sign * weights > 0).nonzero()
                synapses = b.Synapses(source, cells, "w : siemens", on_pre=name + "_post += w")
                if len(pre):
                    synapses.connect(i=pre, j=post)
                    synapses.w = sign * weights[post, pre] * b.nS
                    synapses.delay = delays[post, pre] * dt
                made.append(synapses)
        made = []
        # what is sent within a step works from the next one on: one step less than ours
        spikes = b.SpikeGeneratorGroup(inputs, given["sources"], given["times"] * dt)
        wire(cells, given["weights"], given["delays"] - 1)
        wire(spikes, given["into"], np.zeros_like(given["into"]))
        monitor, membrane = b.SpikeMonitor(cells), b.StateMonitor(cells, "v", record=True)
        b.Network(cells, spikes, monitor, membrane, *made).run((int(given["steps"]) + 1) * dt)
        result = {"unit": np.asarray(monitor.i), "step": np.round(np.asarray(monitor.t / dt)).astype(int),
                  "membrane": np.asarray(membrane.v / b.mV)[:, -1]}
        """,
        dt=dt, into=into, sources=sources, times=times, weights=weights, delays=delays, steps=len(x),
    )  # fmt: skip
    run = liquid_scan(x, weights, into, neuron, delays=delays, dt=dt)
    mine = {(int(step), int(unit)) for step, unit in run.spikes[:, 0].nonzero()}
    # an input at step t works from Brian2's step t + 1 on
    peers = set(zip((found["step"] - 1).tolist(), found["unit"].tolist(), strict=True))
    assert len(mine) > 50
    assert mine == {(step, unit) for step, unit in peers if step < len(x)}


def test_operator_passes_opcheck_and_compiles():
    x, weights, into, _ = network(5, 2, 6, 3)
    state = liquid_rest(x, 6, DRIVEN)
    numbers = liquid_numbers(DRIVEN, 6, 0.5)
    offsets, rows, values = (
        part.clone()
        for part in (lambda s: (s.ccol_indices(), s.row_indices(), s.values()))(weights.to_sparse_csc())
    )
    strong = torch.cat([into.mT.clamp(min=0), (-into.mT).clamp(min=0)], 1)
    arguments = (x, *state, strong, numbers, offsets, rows, values.abs(), torch.ones_like(rows))
    torch.library.opcheck(liquid, arguments)
    torch._dynamo.reset()
    graph = torch.compile(liquid, backend="aot_eager", fullgraph=True)
    assert all(torch.equal(a, b) for a, b in zip(graph(*arguments), liquid(*arguments), strict=True))


def test_same_bits_on_any_number_of_threads():
    x, weights, into, delays = network(batch=5)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(liquid_scan(x, weights, into, DRIVEN, delays=delays).spikes)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_what_is_not_served_falls_back(monkeypatch):
    x, weights, into, delays = network(60)
    with_kernel = liquid_scan(x, weights, into, DRIVEN, delays=delays)
    monkeypatch.setattr(compiled, "HAS_NUMBA", False)
    assert torch.equal(liquid_scan(x, weights, into, DRIVEN, delays=delays).spikes, with_kernel.spikes)


def test_nan_passes_on():
    x, weights, into, _ = network(3)
    x[1, 0, 0] = math.nan
    assert liquid_scan(x, weights, into).state.membrane[0].isnan().any()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": torch.zeros(3, 2)}, ShapeError, r"expected floats \[time, batch, inputs\]"),
        (
            {"connections": torch.zeros(3, 4)},
            ShapeError,
            r"connections has shape \[3, 4\], expected \[40, 40\]",
        ),
        ({"delays": torch.zeros(40, 40).long()}, ConfigError, "expected integers >= 1"),
        ({"dt": 0.0}, ConfigError, "dt is 0.0, expected milliseconds > 0"),
        ({"neuron": LiquidNeuron(leak=0.0)}, ConfigError, "leak is 0.0, expected a finite number > 0"),
        ({"neuron": LiquidNeuron(rest=math.nan)}, ConfigError, "rest is nan, expected a finite number"),
        ({"neuron": LiquidNeuron(threshold=-70.0)}, ConfigError, "expected the threshold above the reset"),
        ({"neuron": LiquidNeuron(current=np.ones(3))}, ShapeError, "current has shape"),
        ({"state": liquid_rest(torch.zeros(1, 3, 1), 40)}, StateError, r"state.membrane is torch.float32"),
    ],
)
def test_bad_arguments_get_one_line(change, error, words):
    names = ("x", "connections", "input_weight", "delays")
    with pytest.raises(error, match=words) as caught:
        liquid_scan(**dict(zip(names, network(3), strict=True)) | change)
    assert "\n" not in str(caught.value)


def test_a_state_too_short_for_the_delays_is_refused():
    x, weights, into, delays = network(3)
    with pytest.raises(StateError, match=r"state.pending .* need .*\[2, 4, 80\]"):
        liquid_scan(x, weights, into, state=liquid_rest(x, 40), delays=delays)
