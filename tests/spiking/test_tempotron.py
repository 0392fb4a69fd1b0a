"""The tempotron: its kernel, its rule written out, and what it learns that counting spikes cannot."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from neuropil.data.task import Batch
from neuropil.errors import ConfigError, LabelError, ShapeError
from neuropil.nn import BatchFirst, Sequential
from neuropil.spiking import Tempotron, TempotronLoss
from neuropil.training import Backprop, Learner
from tests.spiking.patterns import CHANNELS, CLASSES, spike_batch


def module() -> tuple[nn.Module, torch.Tensor]:
    return Tempotron(5, 3), torch.rand(7, 4, 5)


def loss() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    return TempotronLoss(), (torch.randn(4, 3), torch.tensor([0, 2, 1, 0]))


def learner(criterion: type[nn.Module] = TempotronLoss) -> tuple[Learner, Batch]:
    net = BatchFirst(Sequential(Tempotron(CHANNELS, CLASSES)))
    return Backprop(net, torch.optim.Adam(net.parameters(), lr=0.03), loss=criterion()), spike_batch()


PARTS = [
    ("module", module),
    ("module", loss),
    ("learner", learner),
    ("learner", partial(learner, nn.CrossEntropyLoss)),
]


def kernel(t: np.ndarray) -> np.ndarray:
    shape = np.where(t >= 0, 0.935 ** np.maximum(t, 0) - 0.765 ** np.maximum(t, 0), 0)
    return shape / max(0.935**k - 0.765**k for k in range(50))


def test_a_potential_is_the_sum_of_kernels() -> None:
    rng = np.random.default_rng(0)
    spikes = (rng.random((30, 4)) < 0.2).astype(np.float64)
    layer = Tempotron(4, 2).double()
    v = np.zeros((30, 4))
    for s, i in zip(*np.nonzero(spikes), strict=True):
        v[:, i] += kernel(np.arange(30) - s)
    expected = (v @ layer.weight.detach().numpy().T).max(0) - 1
    np.testing.assert_allclose(layer(torch.from_numpy(spikes).unsqueeze(1)).detach()[0], expected, rtol=1e-10)


def test_a_neuron_that_was_only_inhibited_still_learns() -> None:
    layer = Tempotron(2, 1)
    nn.init.constant_(layer.weight, -1.0)
    TempotronLoss()(layer(torch.ones(5, 1, 2)), torch.tensor([0])).backward()
    assert (layer.weight.grad < 0).all()


def test_one_step_is_the_published_rule() -> None:
    rng = np.random.default_rng(1)
    spikes = torch.from_numpy((rng.random((30, 1, 6)) < 0.2).astype(np.float64))
    layer = Tempotron(6, 1, threshold=50.0).double()  # it should fire, and does not
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    TempotronLoss()(layer(spikes), torch.tensor([0])).backward()
    optimizer.step()
    v = np.zeros((30, 6))
    for s, _, i in zip(*np.nonzero(spikes.numpy()), strict=True):
        v[:, i] += kernel(np.arange(30) - s)
    at = int((v @ before.numpy()[0]).argmax())
    np.testing.assert_allclose((layer.weight.detach() - before)[0], 0.1 * v[at], rtol=1e-9)
    layer.zero_grad()
    quiet = Tempotron(6, 2, threshold=50.0).double()
    TempotronLoss()(torch.tensor([[1.0, -1.0]]), torch.tensor([0])).item()
    answer = quiet(spikes)
    functional.relu(answer[:, 1:]).sum().backward()  # a neuron that is right to be silent does not change
    assert not quiet.weight.grad.any()


def test_it_tells_patterns_with_the_same_counts_apart_by_their_timing() -> None:
    generator = torch.Generator().manual_seed(0)
    count, steps, channels = 10, 40, 40
    times = torch.randint(steps, (count, channels), generator=generator)  # one spike per channel, always
    spikes = functional.one_hot(times, steps).permute(2, 0, 1).double()
    targets = torch.arange(count) % 2
    torch.manual_seed(0)
    layer = Tempotron(channels, 2).double()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        value = TempotronLoss()(layer(spikes), targets)
        value.backward()
        optimizer.step()
        if value == 0:
            break
    fires = layer(spikes) >= 0
    assert torch.equal(fires, functional.one_hot(targets, 2).bool())


def test_what_does_not_fit_is_told_in_one_line() -> None:
    with pytest.raises(ConfigError, match="synapse_decay < membrane_decay"):
        Tempotron(2, 2, membrane_decay=0.5)
    with pytest.raises(ConfigError, match="threshold"):
        Tempotron(2, 2, threshold=0)
    with pytest.raises(ShapeError, match=r"expected \[time, batch, 2\]"):
        Tempotron(2, 2)(torch.zeros(3, 1, 4))
    with pytest.raises(LabelError, match="expected 0 to 1"):
        TempotronLoss()(torch.zeros(1, 2), torch.tensor([2]))
