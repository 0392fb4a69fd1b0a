from __future__ import annotations

import json
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from benchmarks import environments
from neuropil.errors import ConfigError
from neuropil.nn import LIF, LeakyIntegrator, RateReadout, Sequential
from neuropil.spiking import network_cost


def spiking():
    net = Sequential(nn.Linear(6, 8), LIF(0.9, 0.5), nn.Linear(8, 3), LeakyIntegrator(0.9))
    return partial(network_cost, net, torch.randn(7, 4, 6))


PARTS = [("analysis", spiking)]


def test_a_layer_counts_what_is_not_zero_on_either_side():
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0, 2.0], [3.0, 4.0, 0.0]]))
    cost = network_cost(layer, torch.tensor([[0.5, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    assert cost.effective_macs == (2 + 1 + 2) / 2 and cost.effective_acs == 0 and cost.dense_operations == 6
    assert cost.connection_sparsity == pytest.approx(1 / 3) and cost.footprint == 8 * 4
    assert cost.picojoules == pytest.approx(2.5 * 4.6)


def test_spikes_accumulate_and_time_adds_up():
    torch.manual_seed(0)
    net = Sequential(nn.Linear(5, 8), LIF(0.9, 0.5), nn.Linear(8, 3), RateReadout())
    x = torch.randn(11, 4, 5)
    spikes = net[1](net[0](x))[0]
    cost = network_cost(net, x)
    assert cost.effective_acs == pytest.approx(3 * float(spikes.sum()) / 4)
    assert cost.effective_macs == 11 * 5 * 8 and cost.dense_operations == 11 * (5 * 8 + 8 * 3)
    assert cost.activation_sparsity == pytest.approx(1 - float(spikes.mean()))
    assert cost.neuron_updates == 11 * 8
    assert [layer.accumulates for layer in cost.layers] == [False, True]


def test_a_static_input_is_counted_once_before_the_first_cell():
    net = Sequential(nn.Linear(5, 8), LIF(0.9, 0.5), nn.Linear(8, 3), RateReadout(), time_steps=10)
    assert network_cost(net, torch.randn(4, 5)).dense_operations == 5 * 8 + 10 * 8 * 3


def test_pruned_weights_cost_nothing():
    layer = prune.l1_unstructured(nn.Linear(10, 10), "weight", amount=0.75)
    cost = network_cost(layer, torch.rand(2, 10) + 1)
    assert cost.connection_sparsity == 0.75 and cost.effective_macs == 25


def test_what_cannot_be_counted_is_told():
    with pytest.raises(ConfigError, match="no linear layer"):
        network_cost(LIF(), torch.randn(2, 1, 3))
    with pytest.raises(ConfigError, match="samples"):
        network_cost(nn.Linear(2, 2), torch.rand(1, 2), samples=0)


@pytest.mark.peer
def test_neurobench_counts_the_same(tmp_path):
    from tests.spiking.neurobench_nets import CASES, made

    try:
        python = environments.python("peers", prepare=False)
    except environments.AbsentError as error:
        pytest.skip(str(error))
    pairs = {case: made(case) for case in CASES}
    for case, (net, x) in pairs.items():
        torch.save(net.state_dict(), tmp_path / f"{case}.pt")
        torch.save(x, tmp_path / f"{case}.x.pt")
    script = Path(__file__).with_name("neurobench_peer.py")
    done = subprocess.run([python, script, tmp_path, *CASES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for case, theirs in json.loads((tmp_path / "found.json").read_text()).items():
        net, x = pairs[case]
        ours = network_cost(net, x)
        assert (ours.parameters, ours.footprint) == (theirs["parameters"], theirs["footprint"]), case
        assert ours.connection_sparsity == pytest.approx(theirs["connection_sparsity"], abs=6e-5), (
            case
        )  # they round
        assert ours.activation_sparsity == pytest.approx(theirs["activation_sparsity"]), case
        assert ours.effective_macs == pytest.approx(theirs["effective_macs"], rel=1e-12), case
        assert ours.effective_acs == pytest.approx(theirs["effective_acs"], rel=1e-12), case
        assert ours.dense_operations == pytest.approx(theirs["dense"], rel=1e-12), case
