"""Units with astrocytes: against their equations step by step, and what their memory is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.nn import RateReadout, Sequential, record
from neuropil.nn.surrogate import Sigmoid
from neuropil.spiking import AstrocyteModulatedSpikingUnit, SpikingTokenMixer
from neuropil.spiking.astro_snn import AstrocyteState


class Smooth(Sigmoid):
    """The smooth stand-in itself, whose gradient is its derivative."""

    fused = ""

    def __call__(self, u):
        return self.smooth(u)


def unit():
    return AstrocyteModulatedSpikingUnit(4, 6), torch.randn(9, 3, 4)


def without_astrocytes():
    return AstrocyteModulatedSpikingUnit(4, 6, astrocyte=False, tau=None), torch.randn(9, 3, 4)


def mixer():
    x = torch.randn(7, 3, 4)
    return SpikingTokenMixer(4, 5), x, SpikingTokenMixer(4, 5, surrogate=Smooth(2.0))


PARTS = [("module", unit), ("module", without_astrocytes), ("module", mixer)]


def literal(unit, x):
    """The equations of the docstring in numpy, one step after the other."""
    p = {name: value.detach().numpy() for name, value in unit.named_parameters()}
    decay_a, decay_v = (np.exp(-1 / np.exp(p[f"log_{name}_tau"])) for name in ("calcium", "membrane"))
    a = v = np.zeros((x.shape[1], unit.out_features))
    spikes = []
    for now in x:
        gate = 1 / (1 + np.exp(-(a @ p["release.weight"].T + p["release.bias"])))
        bonus = p["excitation"] * a
        v = decay_v * v + (1 + gate) * (now @ p["drive.weight"].T + p["drive.bias"])
        a = decay_a * a + np.maximum(now @ p["uptake.weight"].T + p["uptake.bias"], 0)
        spikes.append((v + bonus >= unit.threshold).astype(float))
    return np.stack(spikes), a, v


def test_the_scans_are_the_equations_one_step_after_the_other():
    torch.manual_seed(0)
    unit = AstrocyteModulatedSpikingUnit(5, 7).double()
    x = 2 * torch.randn(40, 3, 5).double()
    spikes, state = unit(x)
    expected, calcium, membrane = literal(unit, x.numpy())
    assert 50 < expected.sum() < expected.size - 50
    np.testing.assert_array_equal(spikes.detach().numpy(), expected)
    np.testing.assert_allclose(state.calcium.detach().numpy(), calcium, rtol=1e-10)
    np.testing.assert_allclose(state.membrane.detach().numpy(), membrane, rtol=1e-10)


def test_gradients_of_the_smooth_unit_are_derivatives():
    torch.manual_seed(0)
    unit = AstrocyteModulatedSpikingUnit(3, 4, surrogate=Smooth(2.0)).double()
    x = torch.randn(6, 2, 3, dtype=torch.double, requires_grad=True)
    names, values = zip(*unit.named_parameters(), strict=True)

    def run(x, *values):
        spikes, state = torch.func.functional_call(unit, dict(zip(names, values, strict=True)), x)
        return spikes, *state

    assert torch.autograd.gradcheck(run, (x, *values))


def test_one_symbol_is_as_loud_in_the_slowest_channel_and_fades_with_its_time_constant():
    unit = AstrocyteModulatedSpikingUnit(1, 3, shortest=4.0, longest=400.0).double()
    with torch.no_grad():
        unit.uptake.weight.fill_(1.0)
        unit.uptake.bias.zero_()
    x = torch.zeros(41, 1, 1, dtype=torch.double)
    x[0] = 1.0
    _, state = unit(x)
    expected = [math.exp(-40 / tau) for tau in (4.0, 40.0, 400.0)]
    np.testing.assert_allclose(
        state.calcium[0].detach().numpy(), expected, rtol=1e-5
    )  # the time constants are single precision


def test_without_astrocytes_it_is_a_leaky_sum_and_keeps_no_calcium():
    unit = AstrocyteModulatedSpikingUnit(2, 2, astrocyte=False, tau=3.0).double()
    x = torch.randn(20, 1, 2).double()
    spikes, state = unit(x)
    v = torch.zeros(1, 2).double()
    for now, spike in zip(unit.drive(x), spikes, strict=True):
        v = math.exp(-1 / 3) * v + now
        assert torch.equal(spike, (v >= 1).double())
    assert not state.calcium.any()
    assert sum(p.numel() for p in unit.parameters()) == 2 + 4 + 2


def test_what_the_astrocyte_knows_moves_the_spikes():
    torch.manual_seed(0)
    unit = AstrocyteModulatedSpikingUnit(4, 8)
    x = torch.randn(30, 2, 4)
    rest = unit.initial_state(x)
    spikes, _ = unit(x, rest)
    more, _ = unit(x, rest._replace(calcium=torch.full((2, 8), 20.0)))
    assert more.sum() > spikes.sum()


def test_only_spikes_meet_the_weights_of_a_mixer():
    torch.manual_seed(0)
    block = SpikingTokenMixer(6, 10)
    seen = {}
    for name in ("mixed", "up", "down"):
        getattr(block, name).register_forward_pre_hook(
            lambda _, args, name=name: seen.update({name: args[0]})
        )
    block.unit.register_forward_pre_hook(lambda _, args: seen.update(unit=args[0]))
    block(torch.randn(12, 2, 6))
    for name in ("mixed", "up", "down"):
        assert set(seen[name].unique().tolist()) == {0.0, 1.0}, name
    assert set(seen["unit"].unique().tolist()) == {
        0.0,
        0.5,
        1.0,
    }  # two spike trains, each with half the weights


def test_its_state_does_not_grow_with_the_text():
    block = SpikingTokenMixer(6, 10)
    _, short = block(torch.randn(3, 2, 6))
    _, long = block(torch.randn(50, 2, 6))
    assert [value.shape for value in short] == [value.shape for value in long] == [(2, 6), (2, 10), (2, 10)]


def test_it_works_inside_a_model_of_the_users_own():
    torch.manual_seed(0)
    net = Sequential(nn.Linear(5, 6), SpikingTokenMixer(6, 8), nn.Linear(6, 3), RateReadout())
    x, y = torch.randn(20, 16, 5), torch.arange(16) % 3
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net[1].unit.parameters())
    assert record(net, x) is not None


def test_same_generator_same_weights():
    first, again = (SpikingTokenMixer(4, 5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "settings",
    [
        {"shortest": 0.0},
        {"shortest": 9.0, "longest": 3.0},
        {"tau": -1.0},
        {"threshold": 0.0},
        {"longest": math.inf},
    ],
)
def test_settings_out_of_range_are_one_line(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))) as caught:
        AstrocyteModulatedSpikingUnit(3, 4, **settings)
    assert "\n" not in str(caught.value)


def test_inputs_and_states_that_do_not_fit():
    unit = AstrocyteModulatedSpikingUnit(3, 4)
    with pytest.raises(ShapeError, match=r"expected \[time, batch, 3\]"):
        unit(torch.zeros(5, 2, 4))
    with pytest.raises(StateError, match=r"the input needs \[2, 4\]"):
        unit(torch.zeros(5, 2, 3), AstrocyteState(torch.zeros(1, 4), torch.zeros(1, 4)))
    with pytest.raises(StateError, match="state is a Tensor"):
        SpikingTokenMixer(3, 4)(torch.zeros(5, 2, 3), torch.zeros(2, 3))
    with pytest.raises(ConfigError, match="0 neurons"):
        AstrocyteModulatedSpikingUnit(3, 0)
