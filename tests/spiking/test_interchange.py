"""Every primitive of NIR against its equation, there and back again; what NIR cannot say is refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn import (
    IF,
    LIF,
    AdaptiveLIF,
    Heaviside,
    LastMembrane,
    LeakyIntegrator,
    RateReadout,
    Recurrent,
    Scale,
    Sequential,
    SynapticIntegrator,
    SynapticLIF,
    TracedLinear,
)
from neuropil.nn.axonal_delay import AxonalDelay
from neuropil.nn.graph import Graph
from neuropil.spiking import DrivenCell, from_nir, to_nir

nir = pytest.importorskip("nir")
DT = 1e-4


def driven():
    return DrivenCell(LIF(0.8, 0.5), gain=0.7, bias=0.1, rest=-0.2), torch.randn(6, 3, 4)


def driven_membrane():
    return DrivenCell(LeakyIntegrator(0.8), gain=torch.rand(4), rest=0.3), torch.randn(6, 3, 4)


PARTS = [("module", driven), ("module", driven_membrane)]


def numbers(low, high, size=4):
    return np.random.default_rng(0).uniform(low, high, size).astype(np.float32)


NEURONS = {
    "I": lambda: nir.I(numbers(1e3, 1e4)),
    "IF": lambda: nir.IF(numbers(1e3, 1e4), numbers(0.5, 1), numbers(-0.2, 0)),
    "LI": lambda: nir.LI(numbers(1e-3, 1e-2), numbers(0.5, 2), numbers(-0.1, 0.1)),
    "LIF": lambda: nir.LIF(
        numbers(1e-3, 1e-2), numbers(10, 20), numbers(-0.1, 0.1), numbers(0.5, 1), numbers(-0.3, 0)
    ),
    "CubaLI": lambda: nir.CubaLI(
        numbers(1e-3, 4e-3), numbers(1e-3, 1e-2), numbers(5, 9), numbers(-0.1, 0.1), numbers(1, 2)
    ),
    "CubaLIF": lambda: nir.CubaLIF(
        numbers(1e-3, 4e-3),
        numbers(1e-3, 1e-2),
        numbers(20, 90),
        np.full(4, -0.1, np.float32),
        numbers(0.5, 1),
        np.full(4, -0.1, np.float32),
        numbers(1, 2),
    ),
}


def euler(node, x):
    """The node's equations in forward Euler, in double precision, straight from the specification."""
    field = {name: np.float64(value) for name, value in vars(node).items() if isinstance(value, np.ndarray)}
    fires, leaks = "v_threshold" in field, "v_leak" in field
    v = np.zeros(x.shape[1:]) + field.get("v_reset", field.get("v_leak", 0.0))
    current, out = np.zeros(x.shape[1:]), []
    for step in np.float64(x):
        charge = (
            DT / field["tau_syn"] * (field["w_in"] * step - current) if "tau_syn" in field else step - current
        )
        current = current + charge
        tau = field.get("tau", field.get("tau_mem", 1.0))
        v = v + DT / tau * ((field["v_leak"] - v if leaks else 0.0) + field["r"] * current)
        if fires:
            spikes = v > field["v_threshold"]
            v = np.where(spikes, field["v_reset"], v)
        out.append(spikes if fires else v)
    return np.float64(out)


@pytest.mark.parametrize("name", NEURONS)
def test_neurons_follow_their_equations_and_go_round(name):
    node = NEURONS[name]()
    graph = nir.NIRGraph.from_list(node)
    torch.manual_seed(0)
    x = 2 * torch.randn(80, 2, 4)
    y, _ = from_nir(graph, dt=DT)(x)
    wanted = torch.from_numpy(euler(node, x.numpy())).float()
    assert y.count_nonzero() > 8
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)
    again = to_nir(from_nir(graph, dt=DT), (4,), dt=DT)
    (same,) = (each for each in again.nodes.values() if type(each) is type(node))
    for field, value in vars(node).items():
        if isinstance(value, np.ndarray) and field not in ("r", "w_in"):
            np.testing.assert_allclose(getattr(same, field), value, rtol=2e-6, atol=1e-6, err_msg=field)
    gain = [each.r * getattr(each, "w_in", 1.0) for each in (node, same)]
    np.testing.assert_allclose(gain[1], gain[0], rtol=2e-6)


LAYERS = {
    "Linear": (lambda: nn.Linear(4, 3, bias=False), (4,)),
    "Affine": (lambda: nn.Linear(4, 3), (4,)),
    "traced": (lambda: TracedLinear(4, 3, decay=0.5), (4,)),
    "Conv1d": (lambda: nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2), (2, 8)),
    "Conv1d same": (lambda: nn.Conv1d(2, 4, 3, padding="same", dilation=2), (2, 8)),
    "Conv2d": (lambda: nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), bias=False), (2, 8, 8)),
    "Conv2d grouped": (lambda: nn.Conv2d(4, 4, 3, groups=4), (4, 6, 6)),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, 2, 1), (2, 8, 8)),
    "SumPool2d": (lambda: nn.AvgPool2d((2, 4), divisor_override=1), (2, 8, 8)),
    "Flatten": (lambda: nn.Flatten(), (2, 3, 4)),
    "Flatten two": (lambda: nn.Flatten(2, 3), (2, 3, 4)),
    "Scale": (lambda: Scale(torch.randn(3, 1)), (3, 4)),
    "Threshold": (lambda: Heaviside(0.2), (4,)),
    "Delay": (lambda: AxonalDelay(torch.tensor([0, 3, 1, 2])), (4,)),
    "IF": (lambda: IF(0.7, reset="zero"), (4,)),
    "LIF": (lambda: LIF(torch.tensor([0.1, 0.37, 0.9, 0.99]), 0.7, reset="zero"), (4,)),
    "LIF in channels": (lambda: LIF(torch.rand(2, 1, 1), 0.7, reset="zero"), (2, 3, 3)),
    "CubaLIF": (lambda: SynapticLIF(0.3, 0.8, 0.7, reset="zero"), (4,)),
    "LI": (lambda: LeakyIntegrator(0.3), (4,)),
    "I": (lambda: LeakyIntegrator(1.0), (4,)),
    "CubaLI": (lambda: SynapticIntegrator(0.3, 0.7), (4,)),
    "soft reset": (lambda: LIF(0.6, 0.7), (4,)),
    "learned": (
        lambda: LIF(0.6, 0.7, reset="zero", learn_decay=True, learn_threshold=True, features=4),
        (4,),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_goes_round_to_the_same_bits(name, tmp_path):
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    net, x = Sequential(make()), torch.randn(9, 2, *shape)
    nir.write(tmp_path / "net.nir", to_nir(net, shape, soft_reset="annotate"))
    same = from_nir(tmp_path / "net.nir")
    assert torch.equal(same(x)[0], net(x)), same
    assert type(same["0"]) in (type(net[0]), nn.Linear), "nothing has to be put around it"


class Mine(nn.Module):
    """A user's own network: a skip around a cell, and its state handed through."""

    def __init__(self):
        super().__init__()
        self.into, self.cell, self.out = nn.Linear(4, 5), LIF(0.8, 0.5, reset="zero"), nn.Linear(5, 5)
        self.drop = nn.Dropout(0.5)

    def forward(self, x, state=None):
        spikes, state = self.cell(self.into(x), state)
        return self.out(self.drop(spikes)) + spikes, state


def test_a_module_of_the_users_own_is_traced():
    torch.manual_seed(0)
    model, x = Mine().eval(), torch.randn(7, 2, 4)
    graph = to_nir(model, (4,))
    assert ("cell", "output") in graph.edges and "drop" not in graph.nodes
    torch.testing.assert_close(from_nir(graph)(x)[0], model(x)[0])


def test_loops_nested_graphs_and_odd_names_go_round():
    torch.manual_seed(0)
    inner = Graph(
        {"cells": LIF(0.8, 0.5, reset="zero"), "back": nn.Linear(4, 4)},
        [("input", "cells"), ("cells", "back"), ("back", "cells"), ("cells", "output")],
    )
    outer = Graph(
        {"a.b": nn.Linear(3, 4), "loop": inner}, [("input", "a.b"), ("a.b", "loop"), ("loop", "output")]
    )
    x = torch.randn(12, 2, 3)
    same = from_nir(to_nir(outer, (3,)))
    assert torch.equal(same(x)[0], outer(x)[0]) and outer(x)[0].any()
    assert same.names == ("a.b", "loop")


def test_a_recurrent_population_is_a_graph_of_its_own():
    torch.manual_seed(0)
    net = Sequential(nn.Linear(3, 4), Recurrent(LIF(0.8, 0.5, reset="zero"), nn.Linear(4, 4)))
    x = 2 * torch.randn(12, 2, 3)
    for model in (net, net[1]):
        given = x if model is net else torch.randn(12, 2, 4)
        wanted = model(given) if model is net else model(given)[0]
        graph = to_nir(model, given.shape[2:])
        assert torch.equal(from_nir(graph)(given)[0], wanted) and wanted.any()
    assert sorted(to_nir(net, (3,)).nodes["1"].nodes) == ["cell", "input", "output", "weights"]


def test_readouts_leave_their_dynamics_behind():
    net = Sequential(nn.Linear(3, 4), LIF(reset="zero"), nn.Linear(4, 2), LastMembrane(0.9), time_steps=5)
    x = torch.randn(2, 3)
    same = from_nir(to_nir(net, (3,)))
    torch.testing.assert_close(same(x.expand(5, 2, 3))[0][-1], net(x))
    assert "1" not in to_nir(nn.Sequential(nn.Linear(3, 4), RateReadout()), (3,)).nodes


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LIF(), "resets by subtraction"),
        (lambda: AdaptiveLIF(reset="zero"), "is a AdaptiveLIF"),
        (lambda: nn.BatchNorm1d(4), "is a BatchNorm1d"),
        (lambda: nn.Flatten(0), "flattens the batch"),
        (lambda: LIF(torch.tensor([1.0, 0.5, 0.5, 0.5]), reset="zero"), "with and without a leak"),
    ],
)
def test_what_nir_cannot_say_is_refused_in_one_line(make, said):
    with pytest.raises(ConfigError, match=said) as caught:
        to_nir(Sequential(make()), (4,))
    assert "\n" not in str(caught.value) and "'0'" in str(caught.value)


def test_what_cannot_be_traced_or_does_not_fit_is_told():
    class Odd(Mine):
        def forward(self, x):
            return self.into(x).tanh()

    with pytest.raises(ConfigError, match="calls tanh"):
        to_nir(Odd(), (4,))
    with pytest.raises(ShapeError, match="samples of shape"):
        to_nir(Sequential(nn.Conv2d(1, 1, 2)), (4,))
    with pytest.raises(ConfigError, match="dt"):
        to_nir(Sequential(nn.Linear(1, 1)), (1,), dt=0)
    with pytest.raises(ConfigError, match="did you mean"):
        to_nir(Sequential(nn.Linear(1, 1)), (1,), soft_reset="annotated")


def test_what_cannot_run_in_these_steps_is_told():
    node = NEURONS["LIF"]()
    with pytest.raises(ConfigError, match="at least a step"):
        from_nir(nir.NIRGraph.from_list(node), dt=0.1)
    with pytest.raises(ConfigError, match="whole steps"):
        from_nir(nir.NIRGraph.from_list(nir.Delay(np.array([1.5e-4]))))
    node = NEURONS["CubaLIF"]()
    node.v_leak = node.v_leak + 0.1
    with pytest.raises(ConfigError, match="same potential"):
        from_nir(nir.NIRGraph.from_list(node))
    node = NEURONS["IF"]()
    node.v_threshold = node.v_reset
    with pytest.raises(ConfigError, match="above"):
        from_nir(nir.NIRGraph.from_list(node))


def test_an_unknown_node_is_told_with_its_name():
    class Exotic(nir.NIRNode):
        def __init__(self):
            self.input_type, self.output_type = {"input": np.array([2])}, {"output": np.array([2])}

    graph = nir.NIRGraph(
        {"in": nir.Input([2]), "odd": Exotic(), "out": nir.Output([2])}, [("in", "odd"), ("odd", "out")]
    )
    with pytest.raises(ConfigError, match="'odd' is a Exotic"):
        from_nir(graph)
