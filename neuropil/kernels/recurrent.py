"""Leaky integrate-and-fire neurons that are given their own last spikes: a whole run in one call.

Per step, with the spikes `s` and the state that the step before left:

    c = x[t] + s W^T + bias              what drives the neurons
    u = decay * v + c
    s = 1[u >= threshold + strength * a]
    v = u - (threshold + strength * a) * s    or, reset="zero",    u * (1 - s)
    a = rho * a + s                      only where the neurons adapt

The work follows the spikes: only rows of neurons that fired are added up. No gradient passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from neuropil.errors import ShapeError
from neuropil.kernels.compiled import serves, traced
from neuropil.kernels.lanes import check_per_neuron, period
from neuropil.kernels.recurrent_op import recurrent, run_recurrent

if TYPE_CHECKING:
    from jaxtyping import Float


class Adaptation(NamedTuple):
    """What moves the thresholds of adaptive neurons."""

    trace: Tensor  # [batch, neurons], where the run starts, and in the answer where it ends
    strength: Tensor  # one number or one per neuron
    decay: Tensor


class RecurrentRun(NamedTuple):
    """What a run gives."""

    driven: Tensor  # [time, batch, neurons], the currents: input and recurrence
    spikes: Tensor  # [time, batch, neurons], 0 or 1
    membrane: Tensor  # [batch, neurons], after the last reset
    trace: Tensor | None  # [batch, neurons], of adaptation


@torch.no_grad()
def recurrent_scan(
    x: Float[Tensor, "time batch neurons"],
    output: Float[Tensor, "batch neurons"],
    membrane: Float[Tensor, "batch neurons"],
    weight: Float[Tensor, "neurons neurons"],
    bias: Float[Tensor, " neurons"] | None,
    decay: Tensor,
    threshold: Tensor,
    adaptation: Adaptation | None = None,
    *,
    reset_to_zero: bool = False,
) -> RecurrentRun:
    """Currents and spikes of every step and the state after the last; see the module for the equations.

    `output` is what the neurons gave at the step before. Raises ShapeError when the arguments do not fit together.

    >>> ring, x = torch.eye(3).roll(1, 0), torch.zeros(4, 1, 3)
    >>> x[0, 0, 0] = 1.0
    >>> one = torch.tensor(1.0)
    >>> run = recurrent_scan(x, x[1], x[1], ring, None, 0.5 * one, one)
    >>> run.spikes[:, 0].tolist()  # each neuron excites the next
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    _check(x, output, membrane, weight, decay, threshold)
    given = (x, output, membrane, weight, decay, threshold, *(adaptation or ()))
    if not serves(*given, *(() if bias is None else (bias,))):
        return recurrent_reference(
            x, output, membrane, weight, bias, decay, threshold, adaptation, reset_to_zero=reset_to_zero
        )
    features, none = x.shape[2:], x.new_empty(0)
    strength, rho = (none, none) if adaptation is None else adaptation[1:]
    run = recurrent if traced(x) else run_recurrent
    driven, spikes, v, a = run(
        x,
        output,
        membrane,
        membrane[:, :0] if adaptation is None else adaptation.trace,
        weight.mT,
        x.new_zeros(features) if bias is None else bias,
        period(decay, features),
        period(threshold, features),
        strength if adaptation is None else period(strength, features),
        rho if adaptation is None else period(rho, features),
        reset_to_zero,
    )
    return RecurrentRun(driven, spikes, v, None if adaptation is None else a)


def recurrent_reference(
    x: Float[Tensor, "time batch neurons"],
    output: Float[Tensor, "batch neurons"],
    membrane: Float[Tensor, "batch neurons"],
    weight: Float[Tensor, "neurons neurons"],
    bias: Float[Tensor, " neurons"] | None,
    decay: Tensor,
    threshold: Tensor,
    adaptation: Adaptation | None = None,
    *,
    reset_to_zero: bool = False,
) -> RecurrentRun:
    """`recurrent_scan` as the equations read, in plain torch.

    >>> x, one = torch.full((2, 1, 1), 0.6), torch.ones(1, 1)
    >>> run = recurrent_reference(x, 0 * one, 0 * one, -one, None, one[0], one[0])
    >>> run.spikes.flatten().tolist(), run.driven.flatten().tolist() == x.flatten().tolist()
    ([0.0, 1.0], True)
    """
    driven, spikes = [], []
    trace = None if adaptation is None else adaptation.trace
    for now in x.unbind(0):
        current = now + torch.nn.functional.linear(output, weight, bias)
        before, raised = decay * membrane + current, threshold
        if adaptation is not None and trace is not None:
            raised = threshold + adaptation.strength * trace
        output = (before - raised >= 0).to(x.dtype)
        membrane = before * (1 - output) if reset_to_zero else before - raised * output
        if adaptation is not None and trace is not None:
            trace = adaptation.decay * trace + output
        driven.append(current)
        spikes.append(output)
    if not driven:
        return RecurrentRun(torch.empty_like(x), torch.empty_like(x), membrane, trace)
    return RecurrentRun(torch.stack(driven), torch.stack(spikes), membrane, trace)


def _check(
    x: Tensor, output: Tensor, membrane: Tensor, weight: Tensor, decay: Tensor, threshold: Tensor
) -> None:
    """Refuse arguments that do not fit together."""
    if x.dim() != 3:
        raise ShapeError(f"recurrent_scan: x has shape {list(x.shape)}, expected [time, batch, neurons]")
    neurons = x.shape[2]
    for name, tensor, shape in (
        ("output", output, x.shape[1:]),
        ("membrane", membrane, x.shape[1:]),
        ("weight", weight, (neurons, neurons)),
    ):
        if tensor.shape != shape:
            raise ShapeError(
                f"recurrent_scan: {name} has shape {list(tensor.shape)}, expected {list(shape)} for x {list(x.shape)}"
            )
    check_per_neuron("recurrent_scan", "decay", decay, x.shape[2:])
    check_per_neuron("recurrent_scan", "threshold", threshold, x.shape[2:])
