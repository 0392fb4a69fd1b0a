from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn

from neuropil.continual import NHL, BatchNormStatistics, NeuroModulator
from neuropil.errors import ConfigError, UnknownNameError
from neuropil.nn import soft_hebb_step
from tests.continual.adapting import convolutional, dense, inputs, spiking
from tests.training.worlds import parameters, same, weights


def nhl(network, lr=0.01, **settings):
    model = network()
    optimizer = None if lr is None else lambda p: torch.optim.Adam(p, lr=lr)
    return NHL(model, optimizer=optimizer, **settings), inputs(model)


PARTS = [
    ("learner", partial(nhl, convolutional)),
    ("learner", partial(nhl, dense, rate=0.05)),
    ("learner", partial(nhl, spiking, rate=0.05)),
    ("learner", partial(nhl, convolutional, lr=None)),
]


def made(network=convolutional, **settings):
    torch.manual_seed(0)
    return nhl(network, **settings)


def test_without_rate_and_modulator_it_is_batch_statistics() -> None:
    adapter, x = made(rate=0.0, lr=None)
    torch.manual_seed(0)
    plain = BatchNormStatistics(convolutional())
    adapter.update(x)
    plain.update(x)
    # torch stores the unbiased variance, n / (n - 1) times the other
    torch.testing.assert_close(adapter.predict(x), plain.predict(x), atol=1e-3, rtol=1e-2)


def test_the_filters_make_one_soft_hebbian_step_and_nothing_else_is_trained() -> None:
    adapter, x = made(rate=0.1, temperature=0.5)
    model = adapter.model
    before = parameters(model)
    twin = copy.deepcopy(model.first)
    adapter.update(x)
    soft_hebb_step(twin, x, rate=0.1, temperature=0.5)
    assert torch.equal(model.first.weight, twin.weight)
    after = parameters(model)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"first.weight"}


def test_the_modulator_descends_the_entropy() -> None:
    adapter, x = made(dense, rate=0.0, lr=0.05)
    losses = [adapter.update(x)["loss"] for _ in range(30)]
    assert losses[-1] < 0.95 * losses[0]
    assert (adapter.modulator.gain != 1).any() and (adapter.modulator.shift != 0).any()


@pytest.mark.parametrize(("network", "site"), [(convolutional, "norm"), (dense, "1"), (spiking, "1")])
def test_the_modulator_stands_behind_the_first_normalisation(network, site) -> None:
    adapter, _ = made(network)
    assert adapter.site is adapter.model.get_submodule(site)


@pytest.mark.parametrize("network", [convolutional, dense, spiking])
def test_folded_the_model_answers_alone(network) -> None:
    adapter, x = made(network, lr=0.1)
    for _ in range(3):
        adapter.update(x)
    answer = adapter.predict(x)
    adapter.fold()
    torch.testing.assert_close(adapter.model.eval()(x), answer)
    assert all(not module._forward_hooks for module in adapter.model.modules())
    fresh = network()
    fresh.load_state_dict(adapter.model.state_dict())
    torch.testing.assert_close(fresh.eval()(x), answer)


def test_reset_puts_every_bit_back() -> None:
    adapter, x = made()
    before, answer = weights(adapter.model), adapter.predict(x)
    for _ in range(3):
        adapter.update(x)
    assert not torch.equal(adapter.predict(x), answer)
    adapter.reset()
    assert same(weights(adapter.model), before) and torch.equal(adapter.predict(x), answer)


def test_a_copy_of_the_model_carries_no_modulator() -> None:
    adapter, x = made(lr=0.1)
    adapter.update(x)
    twin = copy.deepcopy(adapter.model).eval()
    twin_answer = twin(x)
    adapter.detach()
    torch.testing.assert_close(adapter.model.eval()(x), twin_answer)


def test_modulator_of_any_shape() -> None:
    modulator = NeuroModulator(3)
    with torch.no_grad():
        modulator.gain.copy_(torch.tensor([1.0, 2.0, 3.0]))
        modulator.shift.copy_(torch.tensor([0.0, 0.0, 1.0]))
    assert modulator(torch.ones(1, 3)).tolist() == [[1.0, 2.0, 4.0]]
    assert modulator(torch.ones(1, 3, 2, 2))[0, :, 0, 1].tolist() == [1.0, 2.0, 4.0]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="'first'"):
        NHL(convolutional(), layer="frist")
    with pytest.raises(ConfigError, match="temperature"):
        NHL(convolutional(), temperature=0.0)
    with pytest.raises(ConfigError, match="no batch normalisation"):
        NHL(nn.Linear(3, 2))
    assert NHL(convolutional(), layer="second").layer.out_channels == 5
