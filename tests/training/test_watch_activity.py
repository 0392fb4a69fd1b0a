from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from neuropil.data.task import Batch
from neuropil.errors import ConfigError
from neuropil.nn import IF, LIF, RateReadout, Sequential
from neuropil.training import WatchActivity


def watch(model):
    return WatchActivity()


PARTS = [("plugin", lambda: watch)]


def batch(size=1.0):
    return Batch(size * torch.ones(6, 2, 3), torch.zeros(2))


def looks(net, sizes, every=1):
    """Lines that are told when epochs begin with inputs of these sizes."""
    plugin = WatchActivity(every)
    plugin.before_fit(net, None)
    for epoch, size in enumerate(sizes):
        plugin.before_epoch(epoch)
        for _ in range(2):
            given = batch(size)
            assert plugin.before_batch(given) is given
    return plugin.told


@pytest.mark.parametrize(("size", "said"), [(0.0, "is silent"), (2.0, "is saturated")])
def test_a_layer_is_told_of_once_and_again_after_it_recovered(size, said):
    with pytest.warns(UserWarning, match=said):
        told = looks(Sequential(IF()), [size, size, 0.3, size])
    assert len(told) == 2 and all(said in line and "\n" not in line for line in told)


def test_healthy_layers_and_other_networks_are_left_in_peace():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert looks(Sequential(IF(), RateReadout()), [0.3] * 3) == []
        assert looks(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), [0.0]) == []


def test_it_looks_only_as_often_as_told_and_leaves_the_mode():
    net = Sequential(nn.Dropout(0.5), LIF(threshold=100.0)).train()
    calls = []
    net[1].register_forward_hook(lambda *_: calls.append(1))
    with pytest.warns(UserWarning):
        looks(net, [1.0] * 7, every=3)
    assert len(calls) == 3 and net.training and net[0].training


def test_its_memory_goes_round():
    plugin, twin = WatchActivity(), WatchActivity()
    plugin.before_fit(Sequential(IF()), None)
    plugin.before_epoch(0)
    with pytest.warns(UserWarning):
        plugin.before_batch(batch(0.0))
    twin.load_state_dict(plugin.state_dict())
    assert twin.state_dict() == plugin.state_dict() and twin.told == plugin.told


def test_a_bad_interval_is_refused():
    with pytest.raises(ConfigError, match="every"):
        WatchActivity(0)
