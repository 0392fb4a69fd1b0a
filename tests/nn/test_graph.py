from __future__ import annotations

import pytest
import torch
from torch import nn

from neuropil.errors import ConfigError, StateError
from neuropil.nn import LIF, LeakyIntegrator, Sequential
from neuropil.nn.graph import Graph

CHAIN = [("input", "a"), ("a", "b"), ("b", "output")]
LOOP = [("input", "in"), ("in", "cells"), ("cells", "back"), ("back", "cells"), ("cells", "output")]


def skip():
    layers = {"a": nn.Linear(4, 4), "b": LeakyIntegrator(0.7), "c": nn.Linear(4, 3)}
    edges = [("input", "a"), ("a", "b"), ("b", "c"), ("a", "c"), ("c", "output")]
    return Graph(layers, edges), torch.randn(5, 3, 4)


def loop():
    layers = {"in": nn.Linear(4, 3), "cells": LIF(0.8, 0.3), "back": nn.Linear(3, 3)}
    return Graph(layers, LOOP), 2 * torch.randn(6, 3, 4)


def smooth_loop():
    layers = {"in": nn.Linear(4, 3), "cells": LeakyIntegrator(0.5), "back": nn.Linear(3, 3)}
    return Graph(layers, LOOP), torch.randn(4, 2, 4)


PARTS = [("module", skip), ("module", loop), ("module", smooth_loop)]


def test_a_chain_is_a_sequential():
    layers = nn.Linear(4, 6), Sequential(LIF(), nn.Linear(6, 2))
    graph, x = Graph(dict(zip("ab", layers, strict=True)), CHAIN), torch.randn(7, 2, 4)
    assert torch.equal(graph(x)[0], Sequential(*layers)(x))


def test_what_meets_is_added():
    graph, x = skip()
    a = graph["a"](x)
    torch.testing.assert_close(graph(x)[0], graph["c"](a + graph["b"](a)[0]))


def test_a_loop_comes_back_one_step_later():
    graph, x = loop()
    state, spikes, wanted = None, torch.zeros(1, 3, 3), []
    for step in x:
        spikes, state = graph["cells"]((graph["in"](step) + graph["back"](spikes[0]))[None], state)
        wanted.append(spikes)
    assert torch.equal(graph(x)[0], torch.cat(wanted)) and torch.cat(wanted).any()


def test_a_loop_of_two_populations_is_delayed_once():
    """Excitation reaches inhibition in the same step, and inhibition comes back in the next."""
    identity = {name: nn.Identity() for name in ("to_i", "to_e")}
    layers = {"e": LeakyIntegrator(1.0), "i": LeakyIntegrator(1.0), **identity}
    edges = [("input", "e"), ("e", "to_i"), ("to_i", "i"), ("i", "to_e"), ("to_e", "e"), ("e", "output")]
    y, _ = Graph(layers, edges)(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1))
    # e = e + i[t-1], i = i + e, from e = 1: the even Fibonacci-like run 1, 2, 5
    assert y.flatten().tolist() == [1.0, 2.0, 5.0]


def test_a_layer_that_hears_itself():
    graph = Graph({"v": nn.Identity()}, [("input", "v"), ("v", "v"), ("v", "output")])
    assert graph(torch.ones(4, 1, 1))[0].flatten().tolist() == [1.0, 2.0, 3.0, 4.0]


def test_names_that_torch_does_not_allow_are_kept():
    graph = Graph(
        {"keys": nn.Linear(2, 2), "a.b": LIF()}, [("input", "keys"), ("keys", "a.b"), ("a.b", "output")]
    )
    assert graph.names == ("keys", "a.b") and isinstance(graph["a.b"], LIF)
    assert graph(torch.randn(3, 1, 2))[0].shape == (3, 1, 2)


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        ([("input", "a"), ("a", "output")], "'b'"),
        ([("input", "a"), ("a", "inputs"), ("b", "output")], "did you mean 'input'"),
        ([("input", "a"), ("a", "b")], "no path leads from 'input' to 'output'"),
        ([*CHAIN, ("output", "a")], "leads into 'input' or out of 'output'"),
    ],
)
def test_wrong_wiring_is_refused_in_one_line(edges, said):
    with pytest.raises(ConfigError) as caught:
        Graph({"a": nn.Identity(), "b": nn.Identity()}, edges)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_layer_may_not_take_the_ends_names_and_a_state_must_be_a_graphs():
    with pytest.raises(ConfigError, match="graph's own"):
        Graph({"input": nn.Identity()}, [])
    graph, x = loop()
    with pytest.raises(StateError, match="tuple"):
        graph(x, ())
