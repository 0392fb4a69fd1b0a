"""Recurrent networks with fixed random connections, driven by an input: a whole run in one call.

Per step, with input `u`, connections `W`, input weights `W_in` and a bias `b`:

    x[t] = (1 - leak) * x[t-1] + leak * tanh(W x[t-1] + W_in u[t] + b)      leaky tanh units

    m[t] = decay * v[t-1] + W s[t-1] + W_in u[t] + b                        spiking units
    s[t] = 1[m[t] >= threshold],  v[t] = m[t] - threshold * s[t]            reset="subtract"
                                  v[t] = m[t] * (1 - s[t])                  reset="zero"

The connections are a dense `[units, units]` tensor or, spared a conversion per call, a sparse one: CSR for tanh
units, CSC for spikes. Jaeger (2001), "The echo state approach"; Maass et al. (2002), "Real-time computing without
stable states". The compiled runs serve where no gradient is asked for; otherwise plain torch answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional

from neuropil.errors import ConfigError, ShapeError, StateError, nearest
from neuropil.kernels.compiled import serves
from neuropil.kernels.lanes import check_per_neuron
from neuropil.kernels.lif import Reset
from neuropil.kernels.reservoir_op import leaky_reservoir, spiking_reservoir

if TYPE_CHECKING:
    from jaxtyping import Float


class SpikingRun(NamedTuple):
    """What a run of spiking units gives; the last membrane and spikes are where the next run starts."""

    spikes: Tensor  # [time, batch, units]
    membrane: Tensor  # [batch, units], after the last reset


def leaky_reservoir_scan(
    x: Float[Tensor, "time batch inputs"],
    state: Float[Tensor, "batch units"],
    connections: Float[Tensor, "units units"],
    input_weight: Float[Tensor, "units inputs"],
    bias: Float[Tensor, " units"] | None = None,
    leak: float | Tensor = 1.0,
) -> Float[Tensor, "time batch units"]:
    """States of leaky tanh units after every step; the last is where the next run starts.

    `leak` in (0, 1] is one number or one per unit. In single precision tanh is exact to 3e-7, in double to
    rounding. Raises ShapeError, StateError or ConfigError when the arguments do not fit together.

    >>> import torch
    >>> x, w = torch.ones(2, 1, 1), torch.tensor([[0.5]])
    >>> states = leaky_reservoir_scan(x, torch.zeros(1, 1), w, torch.tensor([[1.0]]))
    >>> [round(value, 4) for value in states.flatten().tolist()]  # tanh(1), tanh(1 + 0.5 tanh(1))
    [0.7616, 0.8811]
    """
    leak = _check("leaky_reservoir_scan", x, state, connections, input_weight, bias, "leak", leak)
    if not ((leak > 0) & (leak <= 1)).all():
        raise ConfigError(f"leaky_reservoir_scan: leak is {leak.tolist()}, expected numbers in (0, 1]")
    if not _is_served(x, state, connections, input_weight, bias, leak):
        return leaky_reservoir_reference(x, state, connections, input_weight, bias, leak)
    rows = compressed(connections, torch.sparse_csr)
    states: Tensor = leaky_reservoir(x, state, *rows, input_weight, bias, leak.expand(state.shape[1]))
    return states


def leaky_reservoir_reference(
    x: Float[Tensor, "time batch inputs"],
    state: Float[Tensor, "batch units"],
    connections: Float[Tensor, "units units"],
    input_weight: Float[Tensor, "units inputs"],
    bias: Float[Tensor, " units"] | None,
    leak: Tensor,
) -> Float[Tensor, "time batch units"]:
    """`leaky_reservoir_scan` as the equation reads, in plain torch and differentiable.

    >>> import torch
    >>> x, w, one = torch.ones(1, 1, 1), torch.eye(1), torch.ones(1)
    >>> round(leaky_reservoir_reference(x, 0 * w, w, w, None, 0.5 * one).item(), 4)
    0.3808
    """
    states = []
    for drive in functional.linear(x, input_weight, bias).unbind(0):
        state = (1 - leak) * state + leak * torch.tanh((connections @ state.mT).mT + drive)
        states.append(state)
    return torch.stack(states) if states else x.new_empty(0, *state.shape)


def spiking_reservoir_scan(
    x: Float[Tensor, "time batch inputs"],
    membrane: Float[Tensor, "batch units"],
    spikes: Float[Tensor, "batch units"],
    connections: Float[Tensor, "units units"],
    input_weight: Float[Tensor, "units inputs"],
    bias: Float[Tensor, " units"] | None = None,
    *,
    decay: float | Tensor = 0.9,
    threshold: float | Tensor = 1.0,
    reset: Reset = "subtract",
) -> SpikingRun:
    """Spikes of every step and the last membrane of leaky integrate-and-fire units.

    `membrane` and `spikes` are those before the run. The work follows the spikes: only connections of units that
    fired are read. `decay` and `threshold` are one number or one per unit. No gradient passes a spike. Raises
    ShapeError, StateError or ConfigError when the arguments do not fit together.

    >>> import torch
    >>> rest, w = torch.zeros(1, 2), torch.tensor([[0.0, 0.0], [2.0, 0.0]])  # unit 0 excites unit 1
    >>> x = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    >>> spiking_reservoir_scan(x, rest, rest, w, torch.tensor([[1.0], [0.0]])).spikes.tolist()
    [[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]]]
    """
    if reset not in get_args(Reset):
        hint = nearest(reset, get_args(Reset))
        raise ConfigError(f"spiking_reservoir_scan: reset={reset!r} is unknown{hint}")
    caller = "spiking_reservoir_scan"
    decay = _check(caller, x, membrane, connections, input_weight, bias, "decay", decay)
    threshold = _check(caller, x, spikes, connections, input_weight, bias, "threshold", threshold)
    if not _is_served(x, membrane, connections, input_weight, bias, decay, threshold, spikes):
        return spiking_reservoir_reference(
            x, membrane, spikes, connections, input_weight, bias, decay, threshold, reset
        )
    columns = compressed(connections, torch.sparse_csc)
    parameters = decay.expand(membrane.shape[1]), threshold.expand(membrane.shape[1]), reset == "zero"
    return SpikingRun(*spiking_reservoir(x, membrane, spikes, *columns, input_weight, bias, *parameters))


def spiking_reservoir_reference(
    x: Float[Tensor, "time batch inputs"],
    membrane: Float[Tensor, "batch units"],
    spikes: Float[Tensor, "batch units"],
    connections: Float[Tensor, "units units"],
    input_weight: Float[Tensor, "units inputs"],
    bias: Float[Tensor, " units"] | None,
    decay: Tensor,
    threshold: Tensor,
    reset: Reset,
) -> SpikingRun:
    """`spiking_reservoir_scan` as the equations read, in plain torch.

    >>> import torch
    >>> w, one = torch.eye(1), torch.ones(1)
    >>> spiking_reservoir_reference(w[None], 0 * w, 0 * w, w, w, None, one, one, "zero").spikes.item()
    1.0
    """
    all_spikes = []
    for drive in functional.linear(x, input_weight, bias).unbind(0):
        before_reset = decay * membrane + ((connections @ spikes.mT).mT + drive)
        spikes = (before_reset - threshold >= 0).to(x.dtype)
        membrane = before_reset - threshold * spikes if reset == "subtract" else before_reset * (1 - spikes)
        all_spikes.append(spikes)
    return SpikingRun(torch.stack(all_spikes) if all_spikes else x.new_empty(0, *spikes.shape), membrane)


def compressed(connections: Tensor, layout: torch.layout) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets, indices and values of compressed rows (CSR) or columns (CSC).

    >>> offsets, rows, values = compressed(torch.tensor([[0.0, 2.0], [0.0, 3.0]]), torch.sparse_csc)
    >>> offsets.tolist(), rows.tolist(), values.tolist()
    ([0, 0, 2], [0, 1], [2.0, 3.0])
    """
    by_rows = layout == torch.sparse_csr
    if connections.layout == torch.strided:
        dense = connections if by_rows else connections.mT
        first, second = dense.nonzero(as_tuple=True)
        counts = torch.bincount(first, minlength=len(dense))
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)]), second, dense[first, second]
    sparse = connections.to_sparse_csr() if by_rows else connections.to_sparse_csc()
    if by_rows:
        return sparse.crow_indices(), sparse.col_indices(), sparse.values()
    return sparse.ccol_indices(), sparse.row_indices(), sparse.values()


def _is_served(*tensors: Tensor | None) -> bool:
    given = [tensor for tensor in tensors if tensor is not None]
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    return serves(*given) and not learns


def _check(
    caller: str,
    x: Tensor,
    state: Tensor,
    connections: Tensor,
    input_weight: Tensor,
    bias: Tensor | None,
    name: str,
    parameter: float | Tensor,
) -> Tensor:
    """Refuse arguments that do not fit together; `parameter` as a tensor of the input's dtype."""
    units = input_weight.shape[0]
    if x.dim() != 3 or not x.is_floating_point():
        raise ShapeError(
            f"{caller}: x is {x.dtype} of shape {list(x.shape)}, expected floats [time, batch, inputs]"
        )
    for what, tensor, wanted in (
        ("input_weight", input_weight, (units, x.shape[2])),
        ("connections", connections, (units, units)),
        ("bias", bias, (units,)),
    ):
        if tensor is not None and tensor.shape != wanted:
            raise ShapeError(f"{caller}: {what} has shape {list(tensor.shape)}, expected {list(wanted)}")
    if state.shape != (x.shape[1], units) or state.dtype != x.dtype:
        raise StateError(
            f"{caller}: the state is {state.dtype} of shape {list(state.shape)}, "
            f"x and the weights need {x.dtype} of shape {[x.shape[1], units]}"
        )
    parameter = torch.as_tensor(parameter, dtype=x.dtype, device=x.device)
    check_per_neuron(caller, name, parameter, (units,))
    return parameter.reshape(-1)
