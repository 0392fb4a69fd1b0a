from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.nn import LIF, DelayLinear, RateReadout, Sequential


def delay_linear(**options):
    return DelayLinear(4, 3, longest=5, **options), torch.randn(9, 3, 4)


def delay_linear_learned():
    return delay_linear(learn=True)


def delay_linear_gaussian():
    return delay_linear(learn=True, interpolation="gaussian", width=1.5, bias=False)


PARTS = [("module", delay_linear)]
PARTS += [("module", delay_linear_learned), ("module", delay_linear_gaussian)]


def literal(x, weight, delays, bias):
    """The sum of the docstring, term by term."""
    y = torch.zeros(x.shape[0], x.shape[1], len(weight), dtype=x.dtype) + bias
    for t in range(len(x)):
        for o in range(len(weight)):
            for i in range(weight.shape[1]):
                whole, part = divmod(delays[o, i].item(), 1)
                for step, share in ((int(whole), 1 - part), (int(whole) + 1, part)):
                    if share and t - step >= 0:
                        y[t, :, o] += weight[o, i] * share * x[t - step, :, i]
    return y


@pytest.mark.parametrize("learn", [False, True])
def test_the_layer_is_its_sum(learn):
    layer, x = DelayLinear(3, 2, longest=4, learn=learn).double(), torch.randn(8, 2, 3, dtype=torch.float64)
    wanted = literal(x, layer.weight.detach(), layer.delays.detach(), layer.bias.detach())
    assert_close(layer(x)[0], wanted)


@settings(max_examples=30, deadline=None)
@given(steps=st.integers(0, 7), longest=st.integers(1, 9), seed=st.integers(0, 99))
def test_no_delay_is_a_linear_layer_and_one_delay_a_shifted_one(steps, longest, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(steps, 2, 3, generator=generator)
    layer = DelayLinear(3, 4, longest, delays=torch.zeros(4, 3).long(), generator=generator)
    assert_close(layer(x)[0], nn.functional.linear(x, layer.weight, layer.bias))
    layer.fixed_delays.fill_(longest)
    shifted = torch.cat([torch.zeros(longest, 2, 3), x])[:steps]
    assert_close(layer(x)[0], nn.functional.linear(shifted, layer.weight, layer.bias))


@pytest.mark.parametrize("interpolation", ["triangle", "gaussian"])
def test_shares_of_a_synapse_sum_to_one_around_its_delay(interpolation):
    layer = DelayLinear(5, 4, longest=12, learn=True, interpolation=interpolation, width=0.6)
    nn.init.ones_(layer.weight)
    taps = layer.taps()
    assert_close(taps.sum(-1), torch.ones(4, 5))
    centre = (taps * torch.arange(13.0)).sum(-1)
    inside = (layer.delays > 2) & (layer.delays < 10)
    assert_close(centre[inside], layer.delays[inside], rtol=0, atol=1e-2)


def test_a_delay_is_learned_from_the_time_of_the_output():
    """A teacher with delays of its own; the pupil has its weights and finds the delays, gaussian first."""
    torch.manual_seed(0)
    teacher = DelayLinear(3, 1, longest=10, delays=torch.tensor([[2, 5, 8]]), bias=False)
    nn.init.ones_(teacher.weight)
    pupil = DelayLinear(
        3, 1, longest=10, delays=torch.full((1, 3), 5.0), learn=True, interpolation="gaussian", bias=False
    )
    nn.init.ones_(pupil.weight)
    pupil.weight.requires_grad_(False)
    optimizer = torch.optim.Adam(pupil.parameters(), lr=0.1)
    x = (torch.rand(80, 8, 3) < 0.2).float()
    for step in range(150):
        pupil.width = 0.5 + 2.5 * (1 - step / 150)
        loss = (pupil(x)[0] - teacher(x)[0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert pupil.fixed().delays.tolist() == [[2, 5, 8]]
    assert torch.equal(pupil.fixed()(x)[0], teacher(x)[0])


def test_it_lives_in_a_network():
    net = Sequential(DelayLinear(6, 4, 5, learn=True), LIF(), nn.Linear(4, 2), RateReadout())
    x = torch.randn(9, 3, 6)
    net(x).sum().backward()
    assert net[0].delay_logit.grad.abs().sum() > 0


def test_delays_that_learn_stay_in_range():
    layer = DelayLinear(3, 2, 7, learn=True)
    with torch.no_grad():
        layer.delay_logit += 100 * torch.randn(2, 3)
    assert ((layer.delays >= 0) & (layer.delays <= 7)).all()
    assert layer(torch.randn(4, 1, 3))[0].isfinite().all()


def test_same_generator_same_layer():
    one, two = (DelayLinear(3, 2, 7, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one.weight, two.weight) and torch.equal(one.delays, two.delays)
    many = DelayLinear(100, 100, 3, generator=torch.Generator().manual_seed(5)).delays
    assert [round((many == k).float().mean().item(), 1) for k in range(4)] == [0.2, 0.2, 0.2, 0.2] or (
        many.float().mean().sub(1.5).abs() < 0.05
    )


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda: DelayLinear(3, 2, 0), ConfigError, "longest: got 0, expected at least 1 step"),
        (lambda: DelayLinear(3, 2, 4, width=math.nan), ConfigError, "width: got nan"),
        (lambda: DelayLinear(3, 2, 4, interpolation="gauss"), ConfigError, "did you mean 'gaussian'"),
        (lambda: DelayLinear(3, 2, 4, delays=torch.full((2, 3), 5)), ConfigError, "expected integers from 0 to 4"),
        (lambda: DelayLinear(3, 2, 4, delays=torch.ones(3, 2).long()), ConfigError, r"of shape \[2, 3\]"),
        (lambda: DelayLinear(3, 2, 4)(torch.zeros(3, 1, 5)), ShapeError, r"expected \[time, batch, 3\]"),
        (lambda: DelayLinear(5, 2, 2)(torch.zeros(3, 1, 5), (1,)), StateError, "state is tuple"),
    ],
)  # fmt: skip
def test_bad_arguments_get_one_line(act, error, words):
    with pytest.raises(error, match=words) as caught:
        act()
    assert "\n" not in str(caught.value)
