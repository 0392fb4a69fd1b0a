from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from neuropil.nn import IF, LIF, RateReadout, Sequential, TracedLinear, record


def net(time_steps: int | None = None) -> Sequential:
    torch.manual_seed(0)
    return Sequential(
        nn.Linear(4, 6), LIF(0.5), nn.Linear(6, 3), LIF(0.8), RateReadout(), time_steps=time_steps
    )


def test_everything_is_what_a_hand_written_loop_sees() -> None:
    model, x = net(), 3 * torch.randn(5, 2, 4)
    seen = record(model, x)
    membrane = torch.zeros(2, 6)
    for step in range(5):
        current = model[0](x[step])
        before = 0.5 * membrane + current
        spikes = (before >= 1).float()
        membrane = before - spikes
        torch.testing.assert_close(seen.currents["1"][step], current)
        torch.testing.assert_close(seen.membranes["1"][step], membrane)
        assert torch.equal(seen.spikes["1"][step], spikes)
        torch.testing.assert_close(seen.activations["2"][step], model[2](spikes))
    assert set(seen.activations) == {"0", "2", "4"} and set(seen.spikes) == {"1", "3"}
    assert torch.equal(seen.output, model(x)) and torch.equal(seen.activations["4"], seen.output)


def test_static_input_has_no_time_before_the_first_cell() -> None:
    seen = record(net(time_steps=7), torch.rand(2, 4))
    assert seen.activations["0"].shape == (2, 6)
    assert seen.currents["1"].shape == seen.spikes["1"].shape == (7, 2, 6)
    assert seen.activations["2"].shape == (7, 2, 3)


def test_rates_are_per_neuron() -> None:
    model = Sequential(IF())
    x = torch.tensor([0.0, 0.25, 1.0]).expand(8, 2, 3)
    assert record(model, x).rates["0"].tolist() == [0.0, 0.25, 1.0]


@pytest.mark.parametrize(("current", "said"), [(0.0, "is silent"), (2.0, "is saturated"), (0.25, None)])
def test_warns_of_layers_that_say_nothing(current: float, said: str | None) -> None:
    warnings = record(Sequential(IF()), torch.full((8, 2, 3), current)).warnings()
    assert len(warnings) == (said is not None)
    for line in warnings:
        assert said is not None and said in line and "'0'" in line and "\n" not in line


class Loop(nn.Module):
    """A network of somebody else's: calls its layers step by step and keeps the state itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.cell = nn.Linear(4, 6), LIF()

    def forward(self, x: Tensor) -> Tensor:
        state, total = None, torch.zeros(x.shape[1], 6)
        for step in x:
            spikes, state = self.cell(self.inputs(step).unsqueeze(0), state)
            total = total + spikes[0]
        return total


def test_own_loop_is_put_together_over_its_calls() -> None:
    torch.manual_seed(0)
    model, x = Loop(), 3 * torch.randn(5, 2, 4)
    seen = record(model, x)
    same = record(Sequential(model.inputs, model.cell), x)
    torch.testing.assert_close(seen.activations["inputs"], same.activations["0"])
    torch.testing.assert_close(seen.membranes["cell"], same.membranes["1"])
    assert torch.equal(seen.spikes["cell"], same.spikes["1"])


def test_network_without_time() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    x = torch.randn(2, 4)
    seen = record(model, x)
    assert torch.equal(seen.activations["0"], model[0](x)) and not seen.spikes and not seen.warnings()


def test_traces_and_parametrized_layers_are_seen_by_name() -> None:
    model = Sequential(parametrizations.weight_norm(nn.Linear(4, 3)), LIF(), TracedLinear(3, 2, decay=0.5))
    seen = record(model, torch.randn(5, 2, 4))
    assert set(seen.activations) == {"0", "2", "2.presynaptic"}
    assert seen.activations["2.presynaptic"].shape == (5, 2, 3)


def test_model_is_left_as_it_was() -> None:
    model = Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), LIF(), time_steps=3)
    model[2].eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    record(model, torch.rand(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError):  # nor when it fails
        record(model, torch.rand(2, 5))
    assert not any(module._forward_hooks for module in model.modules())
