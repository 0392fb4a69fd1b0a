"""The neuron of Hodgkin and Huxley, as a reference for all simpler ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from neuropil.errors import ConfigError, nearest
from neuropil.nn.cell import Cell, Numbers
from neuropil.nn.solver import advance
from neuropil.nn.surrogate import Sigmoid, Surrogate

HodgkinHuxleyMethod = Literal["exponential", "rk4"]


class HodgkinHuxleyState(NamedTuple):
    """What the neuron carries from one step to the next."""

    membrane: Tensor  # [batch, ...features], millivolts
    m: Tensor  # [batch, ...features], activation of sodium, in [0, 1]
    h: Tensor  # [batch, ...features], inactivation of sodium, in [0, 1]
    n: Tensor  # [batch, ...features], activation of potassium, in [0, 1]


class GateRates(NamedTuple):
    """Rates of a gate, per millisecond."""

    opening: Tensor
    closing: Tensor


class HodgkinHuxley(Cell):
    """`C v' = -g_Na m^3 h (v - E_Na) - g_K n^4 (v - E_K) - g_L (v - E_L) + x`, and three gates.

    The giant axon of the squid at 6.3 degrees, with rest at -65 millivolts. Each gate opens and closes at rates that
    depend on the membrane. The output is 1 where the membrane crosses `threshold` upwards, else 0; nothing is reset.
    Hodgkin and Huxley (1952), "A quantitative description of membrane current and its application to conduction and
    excitation in nerve".

    Args:
        capacitance: Microfarads per square centimetre, > 0; this and the next seven are a number or a tensor of
            `features`. The input is in microamperes per square centimetre.
        sodium: Greatest conductance, millisiemens per square centimetre, > 0.
        potassium: The same.
        leak: The same.
        sodium_reversal: Millivolts.
        potassium_reversal: Millivolts.
        leak_reversal: Millivolts.
        threshold: Membrane whose upward crossing counts as a spike, millivolts.
        dt: Length of a step in milliseconds, > 0.
        method: `"exponential"` relaxes membrane and gates exactly, each with the others held: of order 1 in `dt`, and
            stable at any step. `"rk4"`, the classical Runge-Kutta method, is of order 4 and needs `dt` below 0.1.
        surrogate: Gradient of the spike; its scale is in millivolts.
        learn: Which numbers are Parameters: none, all, or those named.
        features: Shape of one sample, for one set of numbers per neuron.
        temporal_gradient: Whether the gradient flows back through time.

    Raises:
        ConfigError: A setting is out of range or unknown.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: Input or state are NaN or infinite.

    >>> spikes, state = HodgkinHuxley(dt=0.05)(torch.full((2000, 1, 1), 10.0))  # [time, batch, features]: 100 ms
    >>> spikes.sum().item(), state.m.shape
    (7.0, torch.Size([1, 1]))
    """

    threshold: Tensor

    def __init__(
        self,
        capacitance: float | Tensor = 1.0,
        sodium: float | Tensor = 120.0,
        potassium: float | Tensor = 36.0,
        leak: float | Tensor = 0.3,
        sodium_reversal: float | Tensor = 50.0,
        potassium_reversal: float | Tensor = -77.0,
        leak_reversal: float | Tensor = -54.387,
        threshold: float | Tensor = 0.0,
        *,
        dt: float = 0.01,
        method: HodgkinHuxleyMethod = "exponential",
        surrogate: Surrogate = Sigmoid(0.2),  # noqa: B008  frozen
        learn: bool | Sequence[str] = False,
        features: Sequence[int] | int | None = None,
        temporal_gradient: bool = True,
    ) -> None:
        given = {
            "capacitance": capacitance,
            "sodium": sodium,
            "potassium": potassium,
            "leak": leak,
            "sodium_reversal": sodium_reversal,
            "potassium_reversal": potassium_reversal,
            "leak_reversal": leak_reversal,
            "threshold": threshold,
            "dt": dt,
        }
        super().__init__(
            given,
            positive=("capacitance", "sodium", "potassium", "leak", "dt"),
            learn=learn,
            features=features,
            temporal_gradient=temporal_gradient,
        )
        choices = get_args(HodgkinHuxleyMethod)
        if method not in choices:
            raise ConfigError(f"HodgkinHuxley.method: got {method!r}{nearest(str(method), choices)}")
        self.method: HodgkinHuxleyMethod = method
        self.surrogate = surrogate

    def initial_state(self, x: Tensor) -> HodgkinHuxleyState:
        """Membranes at -65 millivolts, gates in balance, for `x` of shape `[time, batch, ...features]`."""
        membrane = x.new_full(x.shape[1:], -65.0)
        return HodgkinHuxleyState(
            membrane, *(rates.opening / (rates.opening + rates.closing) for rates in gate_rates(membrane))
        )

    def step(
        self, x: Tensor, state: HodgkinHuxleyState, numbers: Numbers
    ) -> tuple[Tensor, HodgkinHuxleyState]:
        """Spikes and state after one step."""
        if self.method == "rk4":
            values = advance(lambda v, *gates: _slopes(v, gates, x, numbers), state, numbers["dt"], "rk4")
            after = HodgkinHuxleyState(*values)
        else:
            after = _relaxed(state, x, numbers)
        threshold = numbers["threshold"]
        spike = self.surrogate(after.membrane - threshold) * (state.membrane < threshold)
        return spike, after


def gate_rates(membrane: Tensor) -> tuple[GateRates, GateRates, GateRates]:
    """Rates of the gates m, h and n at a membrane in millivolts.

    >>> m, h, n = gate_rates(torch.tensor(-55.0))
    >>> round(n.opening.item(), 4), round(m.closing.item(), 4)  # the removable singularity of n; 4 exp(-10 / 18)
    (0.1, 2.295)
    """
    v = membrane + 65
    m = GateRates(_ramp((25 - v) / 10), 4 * torch.exp(-v / 18))
    h = GateRates(0.07 * torch.exp(-v / 20), torch.sigmoid((v - 30) / 10))
    n = GateRates(0.1 * _ramp((10 - v) / 10), 0.125 * torch.exp(-v / 80))
    return m, h, n


def _ramp(z: Tensor) -> Tensor:
    """`z / (exp(z) - 1)`, 1 at zero."""
    near = z.abs() < 1e-3
    safe = torch.where(near, torch.ones_like(z), z)
    return torch.where(near, 1 - z / 2 + z * z / 12, safe / torch.expm1(safe))


def _conductances(gates: Sequence[Tensor], p: Numbers) -> tuple[Tensor, Tensor, Tensor]:
    m, h, n = gates
    return p["sodium"] * m * m * m * h, p["potassium"] * (n * n) * (n * n), p["leak"]


def _slopes(v: Tensor, gates: Sequence[Tensor], x: Tensor, p: Numbers) -> tuple[Tensor, ...]:
    sodium, potassium, leak = _conductances(gates, p)
    current = (
        sodium * (v - p["sodium_reversal"])
        + potassium * (v - p["potassium_reversal"])
        + leak * (v - p["leak_reversal"])
    )
    opened = (
        rates.opening * (1 - gate) - rates.closing * gate
        for rates, gate in zip(gate_rates(v), gates, strict=True)
    )
    return (x - current) / p["capacitance"], *opened


def _relaxed(state: HodgkinHuxleyState, x: Tensor, p: Numbers) -> HodgkinHuxleyState:
    """Each variable on the exact exponential towards its balance, with the others as they were."""
    v, *gates = state
    sodium, potassium, leak = _conductances(gates, p)
    total = sodium + potassium + leak
    balance = (
        sodium * p["sodium_reversal"] + potassium * p["potassium_reversal"] + leak * p["leak_reversal"] + x
    ) / total
    membrane = balance + (v - balance) * torch.exp(-p["dt"] * total / p["capacitance"])
    after = []
    for rates, gate in zip(gate_rates(v), gates, strict=True):
        rate = rates.opening + rates.closing
        open_ = rates.opening / rate
        after.append(open_ + (gate - open_) * torch.exp(-p["dt"] * rate))
    return HodgkinHuxleyState(membrane, *after)
