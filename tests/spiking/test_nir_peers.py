"""The same NIR graph gives the same numbers here, in snnTorch, in Norse and in SpikingJelly, both ways.

What the peers' readers cannot do is left out, not glossed over: Norse ignores `r` (so its graphs have `r = 1`) and
drops an AvgPool2d, snnTorch takes an IF for a leaky neuron and cannot read loops; both take the axes of `Flatten` to
count the batch.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import environments
from neuropil.nn import IF, LIF, Sequential, SynapticLIF
from neuropil.nn.graph import Graph
from neuropil.spiking import from_nir, to_nir

nir = pytest.importorskip("nir")
pytestmark = pytest.mark.peer

DT = 1e-4
STEPS = 40


def lif():
    cells = LIF(0.9, 0.7, reset="zero"), LIF(0.4, 0.6, reset="zero")
    return Sequential(nn.Linear(5, 8), cells[0], nn.Linear(8, 4), cells[1]), (5,), 3


def cuba():
    cells = SynapticLIF(0.6, 0.8, 0.9, reset="zero"), LIF(0.8, 0.3, reset="zero")
    return Sequential(nn.Linear(5, 8), cells[0], nn.Linear(8, 3, bias=False), cells[1]), (5,), 3


def integrate():
    return Sequential(nn.Linear(5, 8), IF(1.3, reset="zero"), nn.Linear(8, 4)), (5,), 3


def conv():
    cells = LIF(0.7, 0.3, reset="zero"), LIF(0.6, 0.1, reset="zero")
    rows = nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 6)
    return Sequential(nn.Conv2d(2, 4, 3, 2, 1), cells[0], *rows, cells[1]), (2, 8, 8), 3


def pool(divisor=None):
    cells = LIF(0.7, 0.3, reset="zero"), LIF(0.6, 0.1, reset="zero")
    pooled = nn.AvgPool2d(2, divisor_override=divisor)
    return Sequential(nn.Conv2d(2, 4, 3, 2, 1), cells[0], pooled, cells[1]), (2, 8, 8), 3


def total():
    return pool(1)


def loop():
    layers = {
        "in": nn.Linear(5, 8),
        "cells": LIF(0.8, 0.8, reset="zero"),
        "back": nn.Linear(8, 8, bias=False),
        "out": nn.Linear(8, 3),
    }
    edges = [
        ("input", "in"),
        ("in", "cells"),
        ("cells", "back"),
        ("back", "cells"),
        ("cells", "out"),
        ("out", "output"),
    ]
    return Graph(layers, edges), (5,), 3


def unit_resistance(graph):
    """The same graph with `r` and `w_in` of one, the weights before it as they are: another network, a valid one."""
    for node in graph.nodes.values():
        for field in ("r", "w_in"):
            if hasattr(node, field) and not isinstance(node, nir.IF):
                scale = getattr(node, field).mean()
                setattr(node, field, np.ones_like(getattr(node, field)))
                node.v_threshold = (node.v_threshold / scale).astype(np.float32)
    return graph


READ = {
    "snntorch": [lif, cuba, pool],
    "norse": [lif, cuba, integrate, total, loop],
    "spikingjelly": [lif, cuba, integrate, pool, conv, loop],
}
MADE = {
    "snntorch": ["leaky", "synaptic", "recurrent"],
    "norse": ["box"],
    "spikingjelly": ["decayed", "plain"],
}


@pytest.fixture(scope="module", params=list(READ))
def peer(request, tmp_path_factory):
    """A peer's name, the folder of what it answered, and the graphs that it was given."""
    try:
        python = environments.python("peers", prepare=False)
    except environments.AbsentError as error:
        pytest.skip(str(error))
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    dt = 1e-3 if name == "norse" else DT
    torch.manual_seed(0)
    for make in READ[name]:
        model, shape, batch = make()
        graph = to_nir(model, shape, dt=dt)
        nir.write(folder / f"{make.__name__}.nir", unit_resistance(graph) if name == "norse" else graph)
        np.save(folder / f"{make.__name__}.x.npy", 3 * torch.randn(STEPS, batch, *shape).numpy())
    for case in MADE[name]:
        np.save(folder / f"{case}.x.npy", 3 * torch.randn(STEPS, 3, 5).numpy())
    cases = [make.__name__ for make in READ[name]] + MADE[name]
    script = Path(__file__).with_name("nir_peers.py")
    done = subprocess.run([python, script, name, str(dt), folder, *cases], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return name, folder, dt


def test_graphs_that_we_wrote_run_alike(peer):
    name, folder, dt = peer
    for make in READ[name]:
        compare(folder, make.__name__, dt)


def test_graphs_that_they_wrote_run_alike(peer):
    name, folder, dt = peer
    for case in MADE[name]:
        compare(folder, case, dt)


def compare(folder, case, dt):
    x, wanted = (torch.from_numpy(np.load(folder / f"{case}.{end}.npy")) for end in "xy")
    y, _ = from_nir(folder / f"{case}.nir", dt=dt)(x)
    assert y.count_nonzero() > 0.02 * y.numel(), f"{case} is silent, which proves nothing"
    torch.testing.assert_close(y, wanted.view(y.shape), msg=lambda text: f"{case}: {text}")


def test_what_we_read_from_a_peer_goes_back_as_it_was(peer):
    name, folder, dt = peer
    for case in MADE[name]:
        first = from_nir(folder / f"{case}.nir", dt=dt)
        x = torch.from_numpy(np.load(folder / f"{case}.x.npy"))
        again = from_nir(to_nir(first, (5,), dt=dt), dt=dt)
        assert torch.equal(first(x)[0], again(x)[0]), case
