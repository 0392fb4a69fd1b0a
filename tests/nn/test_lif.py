from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from neuropil.errors import ConfigError, NonFiniteError, ShapeError, StateError
from neuropil.nn.lif import IF, LIF, LIFState
from neuropil.nn.surrogate import ArcTan, Triangle


@pytest.mark.parametrize("make", [LIF, IF, lambda: LIF(0.9, 0.7, reset="zero", features=5, learn_decay=True)])
def test_sequence_equals_its_parts_and_its_steps(make):
    lif, x = make(), torch.randn(9, 2, 5)
    spikes, state = lif(x)
    carried, outputs = None, []
    for part in (x[:4], x[4:5], x[5:]):
        out, carried = lif(part, carried)
        outputs.append(out)
    assert torch.equal(spikes, torch.cat(outputs)) and torch.equal(state.membrane, carried.membrane)


def test_gradient_crosses_a_carried_state():
    lif, x = LIF(0.8, learn_decay=True), torch.randn(6, 2, 3, requires_grad=True)
    whole = torch.autograd.grad(lif(x)[0].sum(), [x, lif.decay_logit])
    first, state = lif(x[:3])
    second, _ = lif(x[3:], state)
    assert_close(torch.autograd.grad(first.sum() + second.sum(), [x, lif.decay_logit]), whole)


@settings(max_examples=25, deadline=None)
@given(current=st.integers(0, 16), steps=st.integers(1, 60))
def test_rate_of_integrate_and_fire_is_the_closed_form(current, steps):
    spikes, state = IF()(torch.full((steps, 1, 1), current / 16))
    assert spikes.sum().item() == steps * current // 16
    assert state.membrane.item() == (steps * current % 16) / 16


def test_resets():
    x = torch.tensor([1.75, 0.0]).view(2, 1, 1)
    assert IF()(x)[1].membrane.item() == 0.75
    assert IF(reset="zero")(x)[1].membrane.item() == 0.0


def test_static_input_is_its_repetition():
    lif, x = LIF(surrogate=ArcTan()), torch.randn(3, 4, requires_grad=True)
    once, state = lif.forward_static(x, 7)
    again, other = lif(x.expand(7, 3, 4))
    assert torch.equal(once, again) and torch.equal(state.membrane, other.membrane)
    assert_close(torch.autograd.grad(once.sum(), x), torch.autograd.grad(again.sum(), x))


def test_learned_decay_and_threshold_are_parameters_and_reach_a_target():
    torch.manual_seed(0)
    lif = LIF(0.4, learn_decay=True, learn_threshold=True, features=3)
    assert {name: tuple(p.shape) for name, p in lif.named_parameters()} == {
        "decay_logit": (3,),
        "threshold": (3,),
    }
    x = 0.6 * torch.rand(30, 8, 3)
    target = LIF(0.8, 0.9)(x)[0].mean(0)
    optimizer = torch.optim.Adam(lif.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        loss = (lif(x)[0].mean(0) - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]
    assert ((lif.decay > 0) & (lif.decay < 1)).all()


def test_state_dict_round_trip_and_dtype():
    lif = LIF(torch.tensor([0.2, 0.9]), 0.8, features=2, learn_threshold=True).double()
    other = LIF(features=2, learn_threshold=True).double()
    other.load_state_dict(lif.state_dict())
    x = torch.randn(5, 1, 2, dtype=torch.float64)
    assert torch.equal(lif(x)[0], other(x)[0]) and lif(x)[0].dtype == torch.float64
    assert LIF()(x.float())[0].dtype == torch.float32


def test_channels_share_a_decay():
    lif = LIF(torch.tensor([0.5, 0.9]).view(2, 1, 1), features=(2, 1, 1))
    x = torch.randn(4, 3, 2, 5, 5)
    assert torch.equal(lif(x)[0][:, :, 1], LIF(0.9)(x[:, :, 1])[0])


@pytest.mark.parametrize("memory", ["save", "recompute"])
def test_compiled_equals_eager(memory):
    lif = LIF(0.7, surrogate=Triangle(), memory=memory, learn_decay=True)
    x = torch.randn(5, 2, 3, requires_grad=True)
    torch._dynamo.reset()
    mine, state = torch.compile(lif, backend="aot_eager")(x)
    wanted, rest = lif(x)
    assert torch.equal(mine, wanted) and torch.equal(state.membrane, rest.membrane)
    leaves = [x, lif.decay_logit]
    assert_close(torch.autograd.grad(mine.sum(), leaves), torch.autograd.grad(wanted.sum(), leaves))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: LIF(decay=1.5), ConfigError, r"LIF.decay: got 1.5, expected a decay in \(0, 1\]"),
        (lambda: LIF(decay=1.0, learn_decay=True), ConfigError, r"a learned decay in \(0, 1\)"),
        (lambda: IF(threshold=0.0), ConfigError, "IF.threshold: got 0.0, expected a finite number > 0"),
        (lambda: LIF(reset="soft"), ConfigError, "LIF.reset: got 'soft'; choose from subtract, zero"),
        (lambda: LIF(torch.ones(3) / 2, features=4), ConfigError, r"LIF.decay: got shape \[3\]"),
        (lambda: LIF()(torch.zeros(3)), ShapeError, r"expected floats \[time, batch, ...features\]"),
        (lambda: LIF(features=3)(torch.zeros(2, 1, 4)), ShapeError, r"broadcasts to the features \[4\]"),
        (
            lambda: LIF()(torch.zeros(2, 3, 4), LIFState(torch.zeros(2, 4))),
            StateError,
            r"state.membrane has shape \[2, 4\], the input needs \[3, 4\]",
        ),
    ],
)
def test_bad_settings_and_shapes_get_one_line(make, error, words):
    with pytest.raises(error, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_input_is_refused_wherever_it_is(bad, reset):
    for where in (0, 3, 7):
        x = torch.zeros(8, 2, 3)
        x[where, 1, 2] = bad
        with pytest.raises(NonFiniteError, match="LIF: membrane is NaN or infinite"):
            LIF(reset=reset)(x)
