from __future__ import annotations

import pytest
import torch

from neuropil.errors import ConfigError, NonFiniteError
from neuropil.nn.izhikevich import Izhikevich


def izhikevich(**options):
    return Izhikevich(**options), 10 + 20 * torch.randn(9, 3, 4)


def izhikevich_learned():
    return Izhikevich(features=4, learn=True, memory="recompute"), 10 + 20 * torch.randn(9, 3, 4)


PARTS = [("module", izhikevich), ("module", izhikevich_learned)]


def gaps(module, current=10.0, milliseconds=1000):
    steps = int(milliseconds / module.dt.item())
    spikes, _ = module(torch.full((steps, 1, 1), current))
    return spikes.flatten().nonzero().flatten().diff() * module.dt.item()


def test_the_parameters_make_the_patterns_of_the_paper():
    regular, fast, chattering = Izhikevich(), Izhikevich(a=0.1, d=2.0), Izhikevich(c=-50.0, d=2.0)
    assert len(gaps(fast)) > 2 * len(gaps(regular))  # fast spiking: many spikes, no adaptation
    assert gaps(fast)[-1] < 1.2 * gaps(fast)[2] and gaps(regular)[-1] > 1.5 * gaps(regular)[0]
    bursts = gaps(chattering)
    assert bursts.min() < 6 and bursts.max() > 5 * bursts.min()  # bursts with pauses between them


def test_rate_does_not_hang_on_the_step():
    coarse, fine = len(gaps(Izhikevich(dt=0.25))), len(gaps(Izhikevich(dt=0.05)))
    assert abs(coarse - fine) <= 0.15 * fine


def test_one_set_of_numbers_per_neuron():
    c = torch.tensor([-65.0, -50.0])
    x = torch.full((300, 1, 2), 10.0)
    both = Izhikevich(c=c, features=2)(x)[0]
    assert torch.equal(both[..., 0], Izhikevich()(x[..., 0])[0])
    assert torch.equal(both[..., 1], Izhikevich(c=-50.0)(x[..., 1])[0])


def test_learning_reaches_every_number():
    module, x = izhikevich_learned()
    module(x.repeat(8, 1, 1))[0].sum().backward()
    assert {name for name, _ in module.named_parameters()} == {"a", "b", "c", "d"}
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"a": 0.0}, r"Izhikevich.a: got 0.0, expected a finite number > 0"),
        ({"b": float("nan")}, r"Izhikevich.b: got nan, expected a finite number"),
        ({"c": 40.0}, r"Izhikevich.c: got 40.0, expected less than the threshold 30.0"),
        ({"dt": 2.0}, r"Izhikevich.dt: got 2.0, expected milliseconds in \(0, 1\]"),
        ({"memory": "sav"}, r"Izhikevich.memory: got 'sav'; did you mean 'save'\?"),
    ],
)
def test_bad_settings_get_one_line(settings, words):
    with pytest.raises(ConfigError, match=words):
        Izhikevich(**settings)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_non_finite_input_is_refused(bad):
    x = torch.zeros(3, 1, 1)
    x[1] = bad
    with pytest.raises(NonFiniteError, match="Izhikevich"):
        Izhikevich()(x)
