from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from neuropil.errors import ConfigError, NonFiniteError
from neuropil.nn.adaptive import AdaptiveLIF
from neuropil.nn.lif import LIF


def adaptive(**options):
    return AdaptiveLIF(0.7, 0.8, adaptation_strength=0.4, **options), torch.randn(7, 3, 4)


def adaptive_learned():
    module = AdaptiveLIF(
        0.7,
        features=4,
        learn_decay=True,
        learn_threshold=True,
        learn_adaptation_strength=True,
        memory="recompute",
    )
    return module, torch.randn(7, 3, 4)


PARTS = [("module", adaptive), ("module", adaptive_learned)]


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_without_strength_it_is_the_leaky_neuron(reset):
    x = torch.randn(40, 2, 5, requires_grad=True)
    mine, state = AdaptiveLIF(0.8, adaptation_strength=0.0, reset=reset)(x)
    wanted, rest = LIF(0.8, reset=reset)(x)
    assert torch.equal(mine, wanted) and torch.equal(state.membrane, rest.membrane)
    assert_close(torch.autograd.grad(mine.sum(), x), torch.autograd.grad(wanted.sum(), x))


def test_adaptation_is_the_trace_of_the_spikes():
    module = AdaptiveLIF(adaptation_decay=0.9)
    spikes, state = module(torch.rand(20, 2, 3, dtype=torch.float64))
    ages = torch.arange(19, -1, -1, dtype=torch.float64).view(-1, 1, 1)
    decay = module.adaptation_decay.double()
    assert spikes.sum() > 0
    assert_close(state.adaptation, (spikes * decay**ages).sum(0))


def test_static_input_is_its_repetition():
    module, x = AdaptiveLIF(), torch.randn(3, 4)
    assert torch.equal(module.forward_static(x, 6)[0], module(x.expand(6, 3, 4))[0])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"adaptation_decay": 1.0}, r"AdaptiveLIF.adaptation_decay: got 1.0, expected a decay in \[0, 1\)"),
        ({"adaptation_strength": -1.0}, r"adaptation_strength: got -1.0, expected a finite number >= 0"),
    ],
)
def test_bad_settings_get_one_line(settings, words):
    with pytest.raises(ConfigError, match=words):
        AdaptiveLIF(**settings)


def test_non_finite_input_is_refused():
    x = torch.zeros(3, 1, 1)
    x[1] = torch.inf
    with pytest.raises(NonFiniteError, match="AdaptiveLIF"):
        AdaptiveLIF(reset="zero")(x)
