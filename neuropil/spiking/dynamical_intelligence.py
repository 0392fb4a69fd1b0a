"""Memory in nested rhythms: a theta cycle that parts storing from recalling, gamma cycles that hold one item each.

A reconstruction: Monaco, Rajan, Hwang: A brain basis of dynamical intelligence for AI and computational neuroscience.
2021. arXiv:2105.07284, argues for it in words; the equations here are older ones that do what it says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from neuropil.errors import ConfigError, DataError, ShapeError, StateError, nearest
from neuropil.nn.finite import check_finite
from neuropil.nn.integrator import check_input
from neuropil.nn.stateful import Stateful

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

Storage = Literal["pseudo-inverse", "hebb"]


class ClockGates(NamedTuple):
    """What is open at a step, each 0 or 1 in the shape of the steps."""

    auto: Tensor  # connections that complete the present item
    hetero: Tensor  # connections that call the next item
    drive: Tensor  # the input
    plasticity: Tensor  # learning


@dataclass(frozen=True)
class ThetaGammaClock:
    """Gamma cycles within a theta cycle, counted in steps.

    The first half of a theta cycle stores: the input is let in and connections may learn, but what is stored does not
    interfere (Hasselmo, Bodelon and Wyble, 2002). The second half recalls, `slots` gamma cycles of `steps` steps, one
    item each: at the start of every cycle but the first the next item is called, the rest of it completes the item.

    Args:
        slots: Gamma cycles in half a theta cycle, about seven in the hippocampus.
        steps: Steps of a gamma cycle, at least 2.
        transition: Steps at its start in which the next item is called, fewer than `steps`.

    Raises ConfigError for a setting out of range.

    >>> clock = ThetaGammaClock(slots=2, steps=3)
    >>> clock.gates(torch.arange(12)).hetero.tolist()  # six steps that store, then two gamma cycles
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    """

    slots: int = 7
    steps: int = 5
    transition: int = 1

    def __post_init__(self) -> None:
        if self.slots < 1 or self.steps < 2 or not 1 <= self.transition < self.steps:
            raise ConfigError(
                f"ThetaGammaClock: slots={self.slots}, steps={self.steps}, transition={self.transition}; expected at "
                "least 1, at least 2, and from 1 to steps - 1"
            )

    @property
    def recall(self) -> int:
        """First step of the half that recalls."""
        return self.slots * self.steps

    def gates(self, step: Tensor) -> ClockGates:
        """What is open at the given steps, counted from the start of a theta cycle."""
        within = step % (2 * self.recall)
        recalls = within >= self.recall
        called = recalls & (within >= self.recall + self.steps) & (within % self.steps < self.transition)
        gates = (recalls & ~called, called, ~recalls, ~recalls)
        return ClockGates(*(gate.to(step.dtype) for gate in gates))

    def phases(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """Phase of theta and of gamma at the given steps, radians in [0, 2 pi).

        >>> theta, gamma = ThetaGammaClock(slots=2, steps=4).phases(torch.tensor([0.0, 10.0]))
        >>> [round(float(phase) / math.pi, 2) for phase in (theta[1], gamma[1])]
        [1.25, 1.0]
        """
        return (
            2 * math.pi * (step / (2 * self.recall) % 1),
            2 * math.pi * (step / self.steps % 1),
        )


class SequenceWeights(NamedTuple):
    """Connections that hold a sequence."""

    auto: Tensor  # [units, units], complete an item
    hetero: Tensor  # [units, units], call the next


def store_sequence(
    items: Float[Tensor, "length units"],
    rule: Storage = "pseudo-inverse",
    mask: Bool[Tensor, "units units"] | None = None,
) -> SequenceWeights:
    """Connections after one presentation of a sequence of patterns of +1 and -1.

    `"hebb"`: `W = sum_k x_k x_k^T / N`, `V = sum_k x_(k+1) x_k^T / N`, for patterns that are nearly independent.
    `"pseudo-inverse"`: the smallest `W` and `V` with `W x_k = x_k` and `V x_k = x_(k+1)`, for patterns that are alike,
    as images are. With a `mask`, connections `[to, from]` that are not there are cut, and what remains to each unit is
    made up for them.

    Raises ShapeError or ConfigError for arguments that do not fit.

    >>> items = torch.tensor([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0]])
    >>> (items[0] @ store_sequence(items).hetero.mT).round().tolist()
    [1.0, -1.0, 1.0, -1.0]
    """
    if items.dim() != 2 or len(items) < 2:
        raise ShapeError(
            f"store_sequence: items are {list(items.shape)}, expected [length, units], two or more"
        )
    if rule not in get_args(Storage):
        raise ConfigError(f"store_sequence: rule={rule!r} is unknown{nearest(str(rule), get_args(Storage))}")
    units = items.shape[1]
    if rule == "hebb":
        auto, hetero = items.mT @ items / units, items[1:].mT @ items[:-1] / units
    else:
        auto, hetero = torch.linalg.pinv(items) @ items, items[1:].mT @ torch.linalg.pinv(items[:-1]).mT
    if mask is not None:
        if mask.shape != auto.shape:
            raise ShapeError(f"store_sequence: the mask is {list(mask.shape)}, expected {list(auto.shape)}")
        made_up = mask * (units / mask.sum(1, keepdim=True).clamp_min(1))
        auto, hetero = auto * made_up, hetero * made_up
    return SequenceWeights(auto, hetero)


def modular_wiring(
    units: int, in_degree: int, *, modules: int = 1, within: float = 0.8, generator: torch.Generator
) -> Bool[Tensor, "units units"]:
    """Which connections `[to, from]` there are when every unit hears `in_degree` others, most of its own module.

    Modules are runs of neighbouring units; a share `within` of what a unit hears comes from its own, as far as there
    are so many, the rest from anywhere else. `modules=1` is random wiring.

    Raises ConfigError for a setting out of range.

    >>> wiring = modular_wiring(40, 8, modules=4, generator=torch.Generator().manual_seed(0))
    >>> wiring.sum(1).unique().tolist(), wiring.diagonal().any().item()
    ([8], False)
    """
    if not (1 <= in_degree < units and 1 <= modules <= units and 0 <= within <= 1):
        raise ConfigError(
            f"modular_wiring: units={units}, in_degree={in_degree}, modules={modules}, within={within}; expected 1 <= "
            "in_degree < units, 1 <= modules <= units, and a share in [0, 1]"
        )
    module = torch.arange(units) * modules // units
    own = (module[:, None] == module) & ~torch.eye(units, dtype=torch.bool)
    draw = torch.rand(units, units, generator=generator).masked_fill(torch.eye(units, dtype=torch.bool), -1.0)
    if modules == 1:
        wanted = torch.full((units, 1), in_degree)
    else:
        wanted = own.sum(1, keepdim=True).clamp_max(round(within * in_degree))
    near = draw.masked_fill(~own, -2.0).argsort(1, descending=True).argsort(1) < wanted
    rank = draw.masked_fill(near, 2.0)
    if modules > 1 and units - 1 - int(own.sum(1).max()) >= in_degree:
        rank = rank.masked_fill(own & ~near, -0.5)  # the rest comes from other modules
    return rank.argsort(1, descending=True).argsort(1) < in_degree


class SequenceState(NamedTuple):
    """What a sequence memory carries from one step to the next."""

    activity: Tensor  # [batch, units], in (-1, 1)
    trace: Tensor  # [batch, units], what the connections to the next item hear
    line: Tensor  # [batch, delay, units], activity on its way there, the oldest first
    step: Tensor  # [batch], steps since the start of a theta cycle


class SequenceHopfield(Stateful):
    """A Hopfield network that recalls items in order, each in its gamma cycle.

        s <- tanh(gain (g_a W s + g_h V trace + g_x x)),    trace <- trace + rate (s[t - delay] - trace)

    The clock opens and closes `g_a`, `g_h` and `g_x`; with `clock=None` all are open all the time, which is the classic
    network of Sompolinsky and Kanter (1986), "Temporal association in asymmetric neural networks", whose tempo is that
    of trace and delay. Input `[time, batch, units]`; give zeros to let it recall.

    Args:
        auto, hetero: Connections `[units, units]`, see `store_sequence`.
        clock: The rhythm, or None.
        gain: Slope of the units, > 0.
        trace: Rate of the trace in (0, 1].
        delay: Steps until the trace hears an activity.
        auto_strength, hetero_strength, input_strength: Factors of the gates, >= 0.

    Raises ConfigError, ShapeError, StateError, NonFiniteError.

    >>> items = torch.randn(4, 200, generator=torch.Generator().manual_seed(0)).sign()
    >>> memory = SequenceHopfield(*store_sequence(items), clock=ThetaGammaClock(steps=5))
    >>> activity = memory.recall(items[:1], steps=20)  # [time, batch, units], from the first item on
    >>> (activity[4::5, 0].sign() * items).mean(1).tolist()  # overlap at the end of each gamma cycle
    [1.0, 1.0, 1.0, 1.0]
    """

    auto: Tensor
    hetero: Tensor

    def __init__(
        self,
        auto: Float[Tensor, "units units"],
        hetero: Float[Tensor, "units units"],
        *,
        clock: ThetaGammaClock | None = None,
        gain: float = 4.0,
        trace: float = 0.5,
        delay: int = 0,
        auto_strength: float = 1.0,
        hetero_strength: float = 1.0,
        input_strength: float = 1.0,
    ) -> None:
        super().__init__()
        if auto.dim() != 2 or auto.shape[0] != auto.shape[1] or hetero.shape != auto.shape:
            raise ShapeError(
                f"SequenceHopfield: connections are {list(auto.shape)} and {list(hetero.shape)}, expected both "
                "[units, units]"
            )
        strengths = (auto_strength, hetero_strength, input_strength)
        if not (0 < gain < math.inf and 0 < trace <= 1 and delay >= 0 and min(strengths) >= 0):
            raise ConfigError(
                f"SequenceHopfield: gain={gain}, trace={trace}, delay={delay}, strengths {strengths}; expected > 0, in "
                "(0, 1], a whole number >= 0, and >= 0"
            )
        self.register_buffer("auto", auto.clone())
        self.register_buffer("hetero", hetero.clone())
        self.clock, self.gain, self.trace, self.delay = clock, gain, trace, delay
        self.strengths = strengths

    def initial_state(self, x: Tensor) -> SequenceState:
        """Silence at the start of a theta cycle."""
        rest = x.new_zeros(x.shape[1:])
        line = x.new_zeros(x.shape[1], self.delay, *x.shape[2:])
        return SequenceState(rest, rest, line, torch.zeros(x.shape[1], dtype=torch.long, device=x.device))

    def check_state(self, state: Any, x: Tensor) -> None:
        """Raise StateError in one line for the state of another batch."""
        expected = self.initial_state(x[:0])
        for name, value, wanted in zip(expected._fields, state, expected, strict=True):
            if value.shape != wanted.shape:
                raise StateError(
                    f"SequenceHopfield: state.{name} has shape {list(value.shape)}, the input needs "
                    f"{list(wanted.shape)}"
                )

    def forward(
        self, x: Float[Tensor, "time batch units"], state: SequenceState | None = None
    ) -> tuple[Float[Tensor, "time batch units"], SequenceState]:
        """Activity after every step, and the state after the last."""
        check_input(self, x)
        check_finite(x, "SequenceHopfield: the input")
        if x.dim() != 3 or x.shape[2] != len(self.auto):
            raise ShapeError(
                f"SequenceHopfield: input is {list(x.shape)}, expected [time, batch, {len(self.auto)}]"
            )
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        activity, trace, line, step = state
        outputs = []
        for drive in x.unbind(0):
            auto, hetero, let_in = self._gates(step, x.dtype)
            pull = auto * (activity @ self.auto.mT) + hetero * (trace @ self.hetero.mT) + let_in * drive
            activity = torch.tanh(self.gain * pull)
            line = torch.cat([line, activity[:, None]], 1)
            trace = trace + self.trace * (line[:, 0] - trace)
            line, step = line[:, 1:], step + 1
            outputs.append(activity)
        y = torch.stack(outputs) if outputs else x.new_empty(x.shape)
        return y, SequenceState(activity, trace, line, step)

    def _gates(self, step: Tensor, dtype: torch.dtype) -> list[Any]:
        if self.clock is None:
            return list(self.strengths)
        opened = self.clock.gates(step)[:3]
        return [
            strength * gate.to(dtype)[:, None] for strength, gate in zip(self.strengths, opened, strict=True)
        ]

    def recall(self, cue: Float[Tensor, "batch units"], steps: int) -> Float[Tensor, "time batch units"]:
        """Activity over so many steps of recall, from a cue that has just been stored; without input."""
        x = cue.new_zeros(steps, *cue.shape)
        start = self.initial_state(x)
        first = 0 if self.clock is None else self.clock.recall
        # the cue has only come in: the trace hears it from now on, or when it has gone down the line
        line = torch.cat([start.line, cue[:, None]], 1)[:, 1:] if self.delay else start.line
        activity: Tensor = self(x, start._replace(activity=cue, line=line, step=start.step + first))[0]
        return activity

    @torch.no_grad()
    def encode(
        self, items: Float[Tensor, "length units"], *, tolerance: float = 0.02
    ) -> Bool[Tensor, " length"]:
        """Meet a sequence item by item and store what was predicted wrongly; returns which items that were.

        An item is predicted by what the one before calls, `sign(V x_(k-1))`, and known when `sign(W x_k)` is the item.
        Where more than a share `tolerance` of units is wrong, both are corrected for this item (the projection rule of
        Diederich and Opper, 1987). Sequences that are met again and again are stored as by the pseudo-inverse rule.

        Raises ShapeError or DataError for items that are not `[length, units]` of +1 and -1.
        """
        if items.dim() != 2 or items.shape[1] != len(self.auto):
            raise ShapeError(
                f"SequenceHopfield.encode: items are {list(items.shape)}, expected [length, {len(self.auto)}]"
            )
        if not bool((items.abs() == 1).all()):
            raise DataError("SequenceHopfield.encode: items hold numbers other than +1 and -1")
        surprised = []
        for place, item in enumerate(items):
            pairs = [(self.auto, item)] + ([(self.hetero, items[place - 1])] if place else [])
            wrong = [float((weight.mv(before).sign() != item).double().mean()) for weight, before in pairs]
            surprised.append(max(wrong) > tolerance)
            if surprised[-1]:
                for weight, before in pairs:
                    weight += torch.outer(item - weight.mv(before), before) / len(item)
        return torch.tensor(surprised)
