from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from neuropil.continual import BatchNormStatistics
from neuropil.errors import ConfigError, ShapeError
from tests.continual.adapting import convolutional, dense, inputs, spiking
from tests.training.worlds import same, weights


def statistics(network, **settings):
    model = network()
    return BatchNormStatistics(model, **settings), inputs(model)


PARTS = [("learner", partial(statistics, network)) for network in (convolutional, dense, spiking)] + [
    ("learner", partial(statistics, dense, prior=20.0, momentum=0.5))
]


@pytest.mark.parametrize("network", [convolutional, dense])
def test_answers_are_those_of_training_mode_on_the_same_batch(network) -> None:
    torch.manual_seed(0)
    model = network()
    x = inputs(model)
    reference = network()
    reference.load_state_dict(model.state_dict())
    reference.train()
    for module in reference.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    expected = reference(x)
    adapter = BatchNormStatistics(model)
    adapter.update(x)
    torch.testing.assert_close(adapter.predict(x), expected)
    torch.testing.assert_close(model.eval()(x), expected)  # the model itself answers so


def test_prior_and_momentum_by_hand() -> None:
    model = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2))
    with torch.no_grad():
        model[0].running_mean.fill_(1.0)
        model[0].running_var.fill_(2.0)
    adapter = BatchNormStatistics(model, prior=6.0, momentum=0.25)
    adapter.update(torch.tensor([[3.0], [5.0]]))  # mean 4, variance 1, of 2 samples
    mean, variance = (6 * 1 + 2 * 4) / 8, (6 * 2 + 2 * 1) / 8
    assert model[0].running_mean.item() == pytest.approx(0.75 * 1 + 0.25 * mean)
    assert model[0].running_var.item() == pytest.approx(0.75 * 2 + 0.25 * variance)
    adapter.update(torch.tensor([[3.0], [5.0]]))  # the prior is the source's, not what was adapted to
    assert model[0].running_mean.item() == pytest.approx(0.75 * (0.75 + 0.25 * mean) + 0.25 * mean)


def test_an_endless_prior_is_the_source_model() -> None:
    torch.manual_seed(0)
    model = convolutional()
    x = inputs(model)
    before = model.eval()(x)
    BatchNormStatistics(model, prior=1e12).update(x)
    torch.testing.assert_close(model(x), before)


@pytest.mark.parametrize("network", [convolutional, dense, spiking])
def test_reset_puts_every_bit_back(network) -> None:
    torch.manual_seed(0)
    model = network()
    before = weights(model)
    adapter = BatchNormStatistics(model)
    adapter.update(inputs(model))
    assert not same(weights(model), before)
    adapter.reset()
    assert same(weights(model), before)
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="no batch normalisation"):
        BatchNormStatistics(nn.Linear(3, 2))
    with pytest.raises(ConfigError, match="no batch normalisation"):
        BatchNormStatistics(nn.BatchNorm1d(3, track_running_stats=False))
    for settings in ({"prior": -1.0}, {"momentum": 0.0}, {"momentum": 1.5}):
        with pytest.raises(ConfigError, match="expected at least 0"):
            BatchNormStatistics(dense(), **settings)
    with pytest.raises(ShapeError, match="no inputs"):
        BatchNormStatistics(dense()).update(torch.zeros(0, 64))
