from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from neuropil.errors import ConfigError
from neuropil.nn import LIF, DelayLinear, RateReadout, Sequential
from neuropil.spiking import SigmaSchedule, delay_parameters, round_delays


def delays(inputs: int = 4, outputs: int = 3, longest: int = 8, **options: object) -> DelayLinear:
    return DelayLinear(
        inputs, outputs, longest, learn=True, bounds="clamp", interpolation="gaussian", **options
    )


def dcls_layer():
    return delays(width=1.5), torch.randn(9, 3, 4)


def dcls_long():
    """Long enough for products of frequencies."""
    return delays(width=0.5, bias=False), torch.randn(40, 2, 4)


def sigma_schedule():
    return lambda model: SigmaSchedule(nn.ModuleList([model, delays()]), steps=3)


def rounding():
    net = Sequential(delays(), LIF(threshold=0.05), delays(3, 2), RateReadout())
    return round_delays, net, (torch.rand(12, 5, 4) < 0.5).float()


PARTS = [
    ("module", dcls_layer),
    ("module", dcls_long),
    ("plugin", sigma_schedule),
    ("edit", rounding),
]


def test_a_synapse_is_a_gaussian_of_weight_w_in_numpy():
    layer = delays(longest=24, width=2.3).double()
    taps = layer.taps().detach().numpy()
    for o in range(3):
        for i in range(4):
            n = np.arange(25)
            bump = np.exp(-0.5 * ((n - layer.delay[o, i].item()) / 2.3) ** 2)
            np.testing.assert_allclose(taps[o, i], layer.weight[o, i].item() * bump / bump.sum(), rtol=1e-9)


def test_the_weight_of_a_synapse_does_not_depend_on_the_width():
    layer = delays(longest=24)
    for width in (12.0, 3.0, 0.5, 1e-3):
        layer.width = width
        assert_close(layer.taps().sum(-1), layer.weight.detach())


def test_the_width_falls_exponentially_and_stays():
    layer = delays(longest=24)
    schedule = SigmaSchedule(layer, steps=10)
    widths = [layer.width]
    for _ in range(12):
        schedule.after_step()
        widths.append(layer.width)
    wanted = [12 * (0.5 / 12) ** min(1, k / 10) for k in range(13)]
    assert widths == pytest.approx(wanted)


def test_delays_are_brought_back_into_range_after_a_step():
    layer = delays(longest=8)
    schedule = SigmaSchedule(layer, steps=10)
    with torch.no_grad():
        layer.delay.copy_(torch.linspace(-3, 11, 12).view(3, 4))
    assert layer.delays.min() == 0 and layer.delays.max() == 8
    schedule.after_step()
    assert layer.delay.min() == 0 and layer.delay.max() == 8


def test_a_gradient_reaches_a_delay_beyond_its_range():
    layer = delays(1, 1, 8, delays=torch.tensor([[8.0]]))
    layer.delay.data.fill_(9.0)
    layer.width = 2.0
    layer(torch.randn(20, 2, 1))[0].square().sum().backward()
    assert layer.delay.grad.abs() > 0


def test_training_finds_a_teachers_delays():
    """Weights known, delays not: from wide to narrow, then exact after rounding."""
    torch.manual_seed(0)
    teacher = DelayLinear(3, 1, longest=10, delays=torch.tensor([[2, 5, 8]]), bias=False)
    nn.init.ones_(teacher.weight)
    pupil = delays(3, 1, 10, delays=torch.full((1, 3), 5.0), bias=False)
    nn.init.ones_(pupil.weight)
    groups = delay_parameters(pupil)
    optimizer = torch.optim.Adam(groups.delays, lr=0.1)
    schedule = SigmaSchedule(pupil, steps=100)
    x = (torch.rand(60, 8, 3) < 0.2).float()
    for _ in range(150):
        optimizer.zero_grad()
        (pupil(x)[0] - teacher(x)[0]).square().mean().backward()
        optimizer.step()
        schedule.after_step()
    assert round_delays(pupil).delays.tolist() == [[2, 5, 8]]
    assert_close(round_delays(pupil)(x)[0], teacher(x)[0])


def test_parameters_are_split_without_loss():
    net = Sequential(delays(), nn.BatchNorm1d(3), LIF(), DelayLinear(3, 2, 4, learn=True), RateReadout())
    found = delay_parameters(net)
    assert [p is q for p, q in zip(found.delays, (net[0].delay, net[3].delay_logit), strict=True)] == [
        True
    ] * 2
    assert {id(p) for p in (*found.delays, *found.others)} == {id(p) for p in net.parameters()}
    assert len(found.others) == 6


def test_rounding_shares_weights_and_leaves_the_original_alone():
    _, net, x = rounding()
    before = copy.deepcopy(net.state_dict())
    rounded = round_delays(net)
    assert rounded[0].weight is net[0].weight
    assert rounded[0].delays.tolist() == net[0].delay.round().long().tolist()
    assert not rounded[0].learns_delays and net[0].learns_delays
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))
    assert rounded(x).shape == net(x).shape


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: SigmaSchedule(nn.Linear(2, 2), 5), "no learned delays"),
        (lambda: SigmaSchedule(DelayLinear(2, 2, 3), 5), "no learned delays"),
        (lambda: SigmaSchedule(delays(), 0), "steps: got 0"),
        (lambda: SigmaSchedule(delays(), 5, end=0.0), "end: got 0.0"),
        (lambda: SigmaSchedule(delays(), 5, start=math.inf), "start: got inf"),
        (lambda: DelayLinear(2, 2, 3, learn=True, bounds="clip"), "did you mean"),
    ],
)
def test_bad_settings_get_one_line(act, words):
    with pytest.raises(ConfigError, match=words) as caught:
        act()
    assert "\n" not in str(caught.value)
