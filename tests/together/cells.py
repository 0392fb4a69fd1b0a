"""How cells take part: each stands in the network's first free place for cells, with an input of its own scale."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from neuropil.nn import (
    IF,
    LIF,
    QIF,
    ActiveDendrite,
    AdaptiveLIF,
    AdEx,
    ConductanceLIF,
    HodgkinHuxley,
    Izhikevich,
    Recurrent,
    Refractory,
    ResonateAndFire,
    Scale,
    Sequential,
    SynapticLIF,
    TwoCompartment,
    record,
)
from neuropil.spiking import MetaNeuron, ParametricLIF
from tests.together.world import HIDDEN, Act, Taken, World, named, part, stream, together


class Compartments(nn.Module):
    """One current for each of a neuron's compartments, `[batch, n]` to `[batch, compartments, n]`."""

    def __init__(self, *gains: float) -> None:
        super().__init__()
        self.gains = gains

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.relu(x * gain) if gain < 0 else x * gain for gain in self.gains], dim=1)


def lives_in(make: Callable[..., nn.Module]) -> Callable[[World], None]:
    """Plan: take a place for cells, with the settings that the learner asks of cells."""

    def plan(world: World) -> None:
        def cell() -> nn.Module:
            known = inspect.signature(make).parameters
            if world.cell_settings and not {"temporal_gradient", "s"} & known.keys():
                raise Taken("a learner without gradients through time needs cells that can do without")
            return make(**world.cell_settings)

        world.own_cells.append(world.take("cell", cell, "cell_2"))

    return plan


def fires(world: World) -> Act:
    """A spike is a whole one or none, some fire and not all; step by step it computes what it does in one go."""
    place = world.own_cells.pop(0)
    yield
    yield
    yield
    x = stream()[0].train.tensors[0][:8]
    model = world.life.models["ended"].eval()
    cell, own = part(model, place), named(model, place)
    seen: list[Any] = []
    handle = cell.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    with torch.no_grad():
        spikes = [
            s for name, s in record(model, x).spikes.items() if name == own or name.startswith(f"{own}.")
        ]
    handle.remove()
    assert spikes and all(bool(((s == 0) | (s == 1)).all()) for s in spikes), "a spike is neither 0 nor 1"
    for name, parameter in cell.named_parameters():
        assert parameter.isfinite().all(), name
    for key in ("decay", "current_decay"):
        value = getattr(cell, key, None)
        assert value is None or bool(((value > 0) & (value <= 1)).all()), f"{key} left (0, 1]"
    if not isinstance(cell, Sequential):
        (given, (whole, _)), state, steps = seen[-1], None, []
        with torch.no_grad():
            for now in given.split(1):
                out, state = cell(now, state)
                steps.append(out)
        torch.testing.assert_close(torch.cat(steps), whole, rtol=1e-4, atol=1e-5)


def driven(gain: float, make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def cell(temporal_gradient: bool = True) -> nn.Module:
        settings = {} if temporal_gradient else {"temporal_gradient": False}
        return Sequential(Scale(gain), make(**settings))

    return cell


def compartments(gains: tuple[float, ...], make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def cell() -> nn.Module:
        return Sequential(Compartments(*gains), make())

    return cell


def back() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Linear(HIDDEN, HIDDEN, bias=False)


def _leaky(temporal_gradient: bool = True) -> nn.Module:
    return LIF(
        threshold=0.3,
        learn_decay=True,
        learn_threshold=True,
        features=HIDDEN,
        temporal_gradient=temporal_gradient,
    )


def _integrating(temporal_gradient: bool = True) -> nn.Module:
    return IF(threshold=0.3, temporal_gradient=temporal_gradient)


def _adaptive(temporal_gradient: bool = True) -> nn.Module:
    return AdaptiveLIF(threshold=0.3, learn_adaptation_strength=True, temporal_gradient=temporal_gradient)


def _synaptic(temporal_gradient: bool = True) -> nn.Module:
    return SynapticLIF(threshold=0.3, learn_current_decay=True, temporal_gradient=temporal_gradient)


CELLS: dict[str, tuple[Any, Callable[..., nn.Module]]] = {
    "lif": (LIF, _leaky),
    "integrate_and_fire": (IF, _integrating),
    "adaptive_lif": (AdaptiveLIF, _adaptive),
    "synaptic_lif": (SynapticLIF, _synaptic),
    "adex": (AdEx, driven(4000.0, lambda **s: AdEx(dt=1.0, **s))),
    "izhikevich": (Izhikevich, driven(100.0, lambda **s: Izhikevich(dt=1.0, **s))),
    "qif": (QIF, driven(100.0, lambda **s: QIF(dt=1.0, **s))),
    "resonator": (ResonateAndFire, driven(3.0, lambda **s: ResonateAndFire(**s))),
    "hodgkin_huxley": (
        HodgkinHuxley,
        driven(200.0, lambda **s: HodgkinHuxley(dt=1.0, **s)),
    ),  # or four steps are silent
    "conductance_lif": (ConductanceLIF, compartments((10.0, -10.0), lambda: ConductanceLIF())),
    "two_compartment": (TwoCompartment, compartments((10.0, 10.0), lambda: TwoCompartment())),
    "active_dendrite": (ActiveDendrite, compartments((3.0, 3.0, 3.0), lambda: ActiveDendrite(2))),
    "parametric_lif": (
        ParametricLIF,
        lambda **s: ParametricLIF(2.0, threshold=0.1, learn=True, features=HIDDEN, **s),
    ),
    "meta_neuron": (MetaNeuron, driven(20.0, lambda **s: MetaNeuron(learn=True, **s))),
    "refractory": (Refractory, lambda: Refractory(LIF(threshold=0.3), 1)),
    "recurrent": (Recurrent, lambda: Recurrent(LIF(threshold=0.3), back())),
}


def _register() -> None:
    for name, (kind, make) in CELLS.items():

        def act(world: World) -> Act:
            yield from fires(world)

        act.__name__ = name
        together("cell", kind, plan=lives_in(make))(act)


_register()
