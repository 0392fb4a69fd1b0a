"""Membranes step by step as Brian2 computes them from the same equations and the same input."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from neuropil.nn import (
    QIF,
    AdEx,
    AlphaSynapse,
    DoubleExponentialSynapse,
    HodgkinHuxley,
    Izhikevich,
    ResonateAndFire,
    Stateful,
    TwoCompartment,
)
from tests.nn.orders import exactly
from tests.peers import ask_peer

pytestmark = pytest.mark.peer

STEPS = 1500


def drive() -> np.ndarray:
    """Noise that changes at every step, of mean and standard deviation one."""
    return 1 + np.random.default_rng(0).standard_normal(STEPS)


@cache
def brian2() -> dict[str, np.ndarray]:
    """All of them in one process, as starting it takes the longest."""
    return ask_peer(
        "brian2",
        """
        import brian2 as b
        b.prefs.codegen.target = "numpy"
        drive, result = given["drive"], {}

        def run(name, equations, method, dt, start, scale, threshold=None, reset=None, **space):
            clock = b.Clock(dt * b.ms)
            x = b.TimedArray(scale * drive, dt=dt * b.ms)
            group = b.NeuronGroup(1, equations, method=method, clock=clock, threshold=threshold, reset=reset,
                                  namespace={"x": x, **space})
            for key, value in start.items():
                setattr(group, key, value)
            states = b.StateMonitor(group, list(start), record=True, clock=clock)
            spikes = b.SpikeMonitor(group) if threshold else None
            b.Network(group, states, *([spikes] if threshold else [])).run((len(drive) + 1) * dt * b.ms)
            for key in start:
                result[name + "_" + key] = np.asarray(getattr(states, key))[0][1 : len(drive) + 1]
            if threshold:
                result[name + "_spikes"] = np.round(np.asarray(spikes.t / (dt * b.ms))).astype(int)

        run("adex", '''dv/dt = (30 * (-70.6 - v) + 60 * exp((v + 50.4) / 2) - w + x(t)) / 281 / ms : 1
            dw/dt = (4 * (v + 70.6) - w) / 144 / ms : 1''', "euler", 0.1, {"v": -70.6, "w": 0}, 900,
            "v >= -30", "v = -70.6; w += 80.5")
        run("qif", "dv/dt = (v * (v - 1) + x(t)) / 10 / ms : 1", "euler", 0.1, {"v": 0}, 2, "v >= 5", "v = -1")
        run("izhikevich", '''dv/dt = (0.04 * v**2 + 5 * v + 140 - w + x(t)) / ms : 1
            dw/dt = 0.02 * (0.2 * v - w) / ms : 1''', "euler", 0.25, {"v": -65, "w": -13}, 10,
            "v >= 30", "v = -65; w += 8")
        hh = '''dv/dt = (120 * m**3 * h * (50 - v) + 36 * n**4 * (-77 - v) + 0.3 * (-54.387 - v) + x(t)) / ms : 1
            dm/dt = am * (1 - m) - bm * m : 1
            dh/dt = ah * (1 - h) - bh * h : 1
            dn/dt = an * (1 - n) - bn * n : 1
            am = 0.1 * (v + 40) / (1 - exp(-(v + 40) / 10)) / ms : Hz
            bm = 4 * exp(-(v + 65) / 18) / ms : Hz
            ah = 0.07 * exp(-(v + 65) / 20) / ms : Hz
            bh = 1 / (1 + exp(-(v + 35) / 10)) / ms : Hz
            an = 0.01 * (v + 55) / (1 - exp(-(v + 55) / 10)) / ms : Hz
            bn = 0.125 * exp(-(v + 65) / 80) / ms : Hz'''
        rest = dict(zip("vmhn", given["rest"]))
        run("hh", hh, "exponential_euler", 0.02, rest, 10)
        run("hh4", hh.replace("x(t)", "10"), "rk4", 0.02, rest, 10)  # which would read x within a step
        run("alpha", '''dg/dt = (e * r - g) / (5 * ms) : 1
            dr/dt = -r / (5 * ms) : 1''', "exact", 1.0, {"g": 0, "r": 1}, 0)
        run("double", '''df/dt = -f / (2 * ms) : 1
            ds/dt = -s / (8 * ms) : 1''', "exact", 1.0, {"f": 1, "s": 1}, 0)
        run("two", '''dv/dt = (-0.5 * v + 0.5 * (d - v) + 0.4) / 10 / ms : 1
            dd/dt = (-0.5 * d + 0.5 * (v - d) + 3.0) / 10 / ms : 1''', "exact", 1.0, {"v": 0, "d": 0}, 0,
            "v >= 1", "v = 0")
        run("resonator", '''dr/dt = -r / (50 * ms) - 2 * pi * 40 * Hz * v : 1
            dv/dt = -v / (50 * ms) + 2 * pi * 40 * Hz * r : 1''', "rk4", 0.05, {"r": 3, "v": 0}, 0,
            "v >= 1", "v = 0; r = 0")
        """,
        drive=drive(),
        rest=np.array([value.item() for value in exactly(HodgkinHuxley).initial_state(torch.zeros(1, 1, 1).double())]),
    )  # fmt: skip


def every_state(cell: Stateful, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Spikes, and each state after every step."""
    spikes, states, state = [], [], None
    for now in x.split(1):
        spike, state = cell(now, state)
        spikes.append(spike.flatten()[0])
        states.append([value.flatten()[0] for value in state])
    columns = torch.tensor(states).T
    return torch.stack(spikes), dict(zip(state._fields, columns, strict=True))


@pytest.mark.parametrize(
    ("name", "cell", "scale", "names"),
    [
        ("adex", lambda: exactly(AdEx), 900, {"membrane": "v", "adaptation": "w"}),
        ("qif", lambda: exactly(QIF), 2, {"membrane": "v"}),
        ("izhikevich", lambda: exactly(Izhikevich, dt=0.25), 10, {"membrane": "v", "recovery": "w"}),
    ],
)
def test_forward_euler(name, cell, scale, names):
    found = brian2()
    spikes, states = every_state(cell(), torch.from_numpy(scale * drive()).view(-1, 1, 1))
    assert spikes.nonzero().flatten().tolist() == found[f"{name}_spikes"].tolist() != []
    for mine, theirs in names.items():
        assert_close(states[mine], torch.from_numpy(found[f"{name}_{theirs}"]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "method"), [("hh", "exponential"), ("hh4", "rk4")])
def test_hodgkin_huxley(name, method):
    found = brian2()
    cell = exactly(HodgkinHuxley, dt=0.02, method=method)
    x = drive() if method == "exponential" else np.ones(STEPS)
    _, states = every_state(cell, torch.from_numpy(10 * x).view(-1, 1, 1))
    assert found[f"{name}_v"].max() > 20
    for mine, theirs in {"membrane": "v", "m": "m", "h": "h", "n": "n"}.items():
        assert_close(states[mine], torch.from_numpy(found[f"{name}_{theirs}"]), rtol=1e-7, atol=1e-7)


def test_exact_integration():
    found, steps = brian2(), 100
    pulse = torch.zeros(steps, 1, 1, dtype=torch.float64)
    pulse[0] = 1
    alpha = exactly(AlphaSynapse, 5.0)(pulse)[0].flatten()
    assert_close(alpha[1:], torch.from_numpy(found["alpha_g"][: steps - 1]), rtol=1e-9, atol=1e-12)
    double = exactly(DoubleExponentialSynapse, 2.0, 8.0)(pulse)[0].flatten()
    peer = torch.from_numpy(found["double_s"] - found["double_f"])[: steps - 1]
    assert_close(double[1:] / double.max(), peer / peer.max(), rtol=1e-9, atol=1e-12)
    x = torch.tensor([0.4, 3.0], dtype=torch.float64).view(1, 1, 2, 1).expand(STEPS, 1, 2, 1)
    spikes, states = every_state(exactly(TwoCompartment), x)
    assert spikes.nonzero().flatten().tolist() == found["two_spikes"].tolist() != []
    assert_close(states["dendrite"], torch.from_numpy(found["two_d"]), rtol=1e-9, atol=1e-9)
    ring = torch.zeros(STEPS, 1, 1, dtype=torch.float64)
    ring[0] = 3
    spikes, states = every_state(exactly(ResonateAndFire, dt=0.05), ring)
    assert spikes.nonzero().flatten().tolist() == found["resonator_spikes"].tolist() != []
    assert_close(states["membrane"], torch.from_numpy(found["resonator_v"]), rtol=1e-7, atol=1e-7)
