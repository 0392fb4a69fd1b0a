"""E-prop: recurrent networks that learn without going back through their recurrence.

A weight's gradient is split into what the synapse knows, its eligibility `e[t]`, and what the error tells the neuron,
the learning signal `L[t]`: `dE/dw = sum_t L[t] e[t]`. The eligibility follows a spike through the neuron's own state
(its leak, its adaptation) but not through other neurons and back, so it can be kept forward in time. For an input `i`
of a neuron with decay `d`, surrogate derivative `psi` and an adaptive threshold (`rho`, `beta`):

    x[t] = d x[t-1] + s_i[t]                              membrane's part
    e[t] = psi[t] (x[t] - beta a[t-1])
    a[t] = rho a[t-1] + e[t]                              threshold's part

Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein and Maass (2020), "A solution to the learning dilemma for recurrent
networks of spiking neurons". The sum over a run is computed without one trace per synapse: the derivative is carried
back through each neuron's own state alone, which gives the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from neuropil.data.task import Batch
from neuropil.errors import ConfigError, NonFiniteError, ShapeError
from neuropil.kernels.lif import lif_scan_known
from neuropil.nn.adaptive import AdaptiveLIF
from neuropil.nn.finite import check_finite
from neuropil.nn.lif import IF, LIF, LIFState
from neuropil.nn.recurrent import Recurrent, RecurrentState
from neuropil.nn.stateful import Stateful
from neuropil.training.allowed import restrict
from neuropil.training.learner import Backprop, Loss
from neuropil.training.plugin import Plugin

if TYPE_CHECKING:
    from jaxtyping import Float


class EPropRecurrent(Recurrent):
    """`Recurrent` whose gradient is that of e-prop: it passes through each cell's own state, not around the loop.

    Runs exactly as `Recurrent(cell, weights)`; any cell and any weights, delays and parametrizations included. The
    weights still learn, from the spikes that they carried. The input's gradient at a step is what its current did to
    the cells directly, so an input layer learns by e-prop as well. Errors are those of `Recurrent`.

    The backward pass runs the cells' compiled scan once over the whole sequence.

    >>> from neuropil.nn import LIF
    >>> layer = EPropRecurrent(LIF(decay=0.9), nn.Linear(5, 5, bias=False))
    >>> spikes, state = layer(torch.rand(20, 2, 5))  # currents [time, batch, neurons]
    >>> spikes.sum().backward()
    >>> layer.weights.weight.grad.shape
    torch.Size([5, 5])
    """

    def forward(self, x: Tensor, state: RecurrentState | None = None) -> tuple[Tensor, RecurrentState]:
        """Output of every step, `[time, batch, ...features]`, and the state after the last."""
        if not torch.is_grad_enabled() or not len(x):
            return super().forward(x, state)
        if x.dim() < 2 or not x.is_floating_point():
            raise ShapeError(
                f"EPropRecurrent: input is {x.dtype} of shape {list(x.shape)}, expected floats "
                "[time, batch, ...features]"
            )
        start: RecurrentState = self.initial_state(x) if state is None else state
        self.check_state(start, x)
        with _computed_once(self.weights):
            with torch.no_grad():
                driven, outputs, after = self._checked_run(x.detach(), start)
            if self.is_fused(x):
                given = driven, x, start.output, outputs, self.weights.weight, self.weights.bias
                currents = _Driven.apply(*given)  # type: ignore[no-untyped-call]
                if type(self.cell) in (LIF, IF):
                    return self._known(currents, start, outputs, after)
            else:
                before = torch.cat([start.output.unsqueeze(0), outputs[:-1]])
                back = self._back_over_time(before, start.weights)
                # the very numbers of the run, whose sums were taken step by step, with this gradient
                currents = driven + ((x + back) - (x + back).detach())
        output, cell = self.cell(currents, start.cell)
        return output, RecurrentState(cell, output[-1].detach(), after.weights)

    def _checked_run(self, x: Tensor, start: RecurrentState) -> tuple[Tensor, Tensor, RecurrentState]:
        """`run`, where NaN or infinity in the input is told of as such."""
        if not self.is_fused(
            x
        ):  # a compiled run lets no NaN out of a membrane: the last answers for all input
            check_finite(x, "EPropRecurrent input")
        try:
            return self.run(x, start)
        except NonFiniteError:
            check_finite(x, "EPropRecurrent input")
            raise

    def _known(
        self, currents: Tensor, start: RecurrentState, outputs: Tensor, after: RecurrentState
    ) -> tuple[Tensor, RecurrentState]:
        """What the cells gave in the run, with the gradient of their own state."""
        cell: LIF = self.cell  # type: ignore[assignment]
        spikes, membrane = lif_scan_known(
            currents,
            start.cell.membrane,
            cell.decay,
            cell.threshold,
            cell.surrogate,
            (outputs, after.cell.membrane),
            reset=cell.reset,
            detach_reset=cell.detach_reset,
            temporal_gradient=cell.temporal_gradient,
        )
        return spikes, RecurrentState(LIFState(membrane), spikes[-1].detach(), after.weights)

    def _back_over_time(self, before: Tensor, carried: Any) -> Tensor:
        if isinstance(self.weights, Stateful):
            back: Tensor = self.weights(before, carried)[0]
            return back
        folded: Tensor = self.weights(before.flatten(0, 1))
        return folded.reshape(*before.shape[:2], *folded.shape[1:])


class _Driven(torch.autograd.Function):
    """The currents of a run that is over, with the gradient of `x + linear(outputs a step before, weight, bias)`."""

    @staticmethod
    def forward(
        ctx: Any,
        driven: Tensor,
        x: Tensor,
        first: Tensor,
        outputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(first, outputs)
        return driven.view_as(driven)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (first, outputs), (_, x, _, _, weight, bias) = ctx.saved_tensors, ctx.needs_input_grad
        change = None
        if weight:
            change = gradient[0].mT @ first
            change.addmm_(gradient[1:].flatten(0, 1).mT, outputs[:-1].flatten(0, 1))
        return (
            None,
            gradient if x else None,
            None,
            None,
            change,
            gradient.flatten(0, 1).sum(0) if bias else None,
        )


class EProp(Backprop):
    """Trains a recurrent spiking network by e-prop: `EPropRecurrent` layers, and an error at every step.

    The model answers with a sequence `[time, batch, outputs]`, for instance from a linear layer and a
    `LeakyIntegrator`. How the error comes back to the neurons is that layer's affair: `nn.Linear` sends it through the
    transposed weights (symmetric e-prop), `FeedbackLinear` through fixed random ones, and `MirroredFeedbackLinear`
    through random ones that learn beside the weights (adaptive e-prop; with weight decay they meet).

    Args:
        model: `inputs -> [time, batch, outputs]`; at least one `EPropRecurrent` in it and no other recurrence.
        optimizer: Over the model's parameters.
        target_rate: Spikes per step that neurons of the recurrent layers are drawn to, in [0, 1], or None.
        rate_strength: Weight of half the squared distance of each neuron's rate from that target, summed.
        burn_in: Steps at the beginning whose error is not looked at.
        loss: `(output, target) -> scalar` for the answers of a step; cross-entropy by default.
        plugins: As for `Backprop`.

    Raises:
        ConfigError: There is nothing to train by e-prop, another recurrence, or a setting is out of range.
        ShapeError: The answer is no sequence.
        NonFiniteError, LabelError: As `Backprop`.

    >>> from neuropil.nn import LIF, LeakyIntegrator, Sequential
    >>> net = Sequential(
    ...     nn.Linear(3, 10), EPropRecurrent(LIF(0.9), nn.Linear(10, 10)), nn.Linear(10, 2), LeakyIntegrator(0.9)
    ... )
    >>> from neuropil.nn import BatchFirst
    >>> learner = EProp(BatchFirst(net), torch.optim.Adam(net.parameters(), lr=0.01))
    >>> sorted(learner.update(Batch(torch.rand(4, 20, 3), torch.tensor([0, 1, 0, 1]))))
    ['loss']
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        target_rate: float | None = None,
        rate_strength: float = 1.0,
        burn_in: int = 0,
        loss: Loss | None = None,
        plugins: Sequence[Plugin] = (),
    ) -> None:
        super().__init__(model, optimizer, loss=loss, plugins=plugins)
        others = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.RNNBase | nn.RNNCellBase)
            or (isinstance(module, Recurrent) and not isinstance(module, EPropRecurrent))
        ]
        if others:
            raise ConfigError(
                f"EProp: layer {others[0]!r} is recurrent in another way; make it an EPropRecurrent"
            )
        self.layers = [module for module in model.modules() if isinstance(module, EPropRecurrent)]
        if not self.layers:
            raise ConfigError("EProp: the model has no EPropRecurrent layer; use OTTT or Backprop")
        if target_rate is not None and not 0 <= target_rate <= 1:
            raise ConfigError(
                f"EProp.target_rate: got {target_rate}, expected spikes per step in [0, 1] or None"
            )
        if not 0 <= rate_strength < math.inf or burn_in < 0:
            raise ConfigError(
                f"EProp: rate_strength={rate_strength}, burn_in={burn_in}; expected numbers >= 0"
            )
        self.target_rate, self.rate_strength, self.burn_in = target_rate, rate_strength, burn_in
        self._spikes: list[Tensor] = []

    def update(self, batch: Batch) -> dict[str, float]:
        """One step on one batch."""
        if self.target_rate is None:
            return super().update(batch)
        handles = [layer.register_forward_hook(self._listen) for layer in self.layers]
        try:
            return super().update(batch)
        finally:
            self._spikes = []
            for handle in handles:
                handle.remove()

    def answer(self, batch: Batch) -> Tensor:
        """The model's output; what a plugin has shown the model before is forgotten."""
        self._spikes = []
        return super().answer(batch)

    def objective(self, output: Tensor, batch: Batch) -> Tensor:
        """Mean over steps of the loss, and how far the rates are from their target."""
        if output.dim() < 3:
            raise ShapeError(
                f"EProp: the model's output is {list(output.shape)}, expected [time, batch, outputs]: no readout"
            )
        output = output[self.burn_in :]
        if not len(output):
            raise ConfigError(f"EProp.burn_in: {self.burn_in} leaves no step to learn from")
        classes = batch.classes
        if isinstance(classes, Tensor):  # a mask sample by sample
            classes = classes.repeat(len(output), 1)
        loss = self.loss(restrict(output.flatten(0, 1), classes), batch.targets.repeat(len(output)))
        for spikes in self._spikes:
            distance = spikes.mean((0, 1)) - (self.target_rate or 0.0)
            loss = loss + self.rate_strength * distance.square().sum() / 2
        return loss

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Mean output over time."""
        return super().predict(x).mean(0)

    def _listen(self, _: nn.Module, __: Any, answer: tuple[Tensor, Any]) -> None:
        self._spikes.append(answer[0])


@contextmanager
def _computed_once(module: nn.Module) -> Iterator[None]:
    """Keep parametrized weights for a whole run, with their gradient: a step without one must not be kept for all."""
    parametrized = [part for part in module.modules() if parametrize.is_parametrized(part)]
    if not parametrized:
        yield
        return
    with parametrize.cached():
        for part in parametrized:
            for name in part.parametrizations:  # type: ignore[union-attr]
                getattr(part, name)
        yield


@torch.no_grad()
def eligibility_traces(
    cell: LIF, currents: Float[Tensor, "time batch neurons"], pre: Float[Tensor, "time batch inputs"]
) -> Float[Tensor, "time batch neurons inputs"]:
    """The eligibility of every synapse at every step, forward in time: to look at, or for a rule of one's own.

    `currents` are all that drives the neurons (a `LIF` or `AdaptiveLIF`, from rest), `pre` the spikes that reach the
    synapses looked at. The recursion follows the cell's own equations, its reset included. Takes memory for time x
    batch x synapses, which `EPropRecurrent` does not need.

    Raises ConfigError for another cell, ShapeError when time and batch differ.

    >>> spike, currents = torch.tensor([1.0, 0.0]).view(2, 1, 1), torch.tensor([0.5, 0.25]).view(2, 1, 1)
    >>> traces = eligibility_traces(LIF(decay=0.5), currents, spike)  # the membrane stays at one half
    >>> round(float(traces[1] / traces[0]), 3), traces.shape
    (0.5, torch.Size([2, 1, 1, 1]))
    """
    if not isinstance(cell, LIF):
        raise ConfigError(f"eligibility_traces: got a {type(cell).__name__}, expected a LIF or AdaptiveLIF")
    if pre.shape[:2] != currents.shape[:2]:
        raise ShapeError(
            f"eligibility_traces: currents {list(currents.shape)} and pre {list(pre.shape)} do not have the same time "
            "and batch"
        )
    strength, rho = pre.new_zeros(()), pre.new_zeros(())
    if isinstance(cell, AdaptiveLIF):
        strength, rho = cell.adaptation_strength, cell.adaptation_decay
    v = a = currents.new_zeros(currents.shape[1:])
    by_membrane = by_adaptation = currents.new_zeros(*currents.shape[1:], pre.shape[2])
    found = []
    for current, spikes in zip(currents, pre.unsqueeze(2), strict=True):
        u, raised = cell.decay * v + current, cell.threshold + strength * a
        z, psi = (u >= raised).to(u.dtype), cell.surrogate.derivative(u - raised)
        sensed = _each(cell.decay) * by_membrane + spikes
        tired = _each(strength) * by_adaptation
        eligibility = psi.unsqueeze(-1) * (sensed - tired)
        found.append(eligibility)
        if cell.reset == "subtract":
            v, by_membrane = u - raised * z, sensed - tired * z.unsqueeze(-1)
        else:
            v, by_membrane = u * (1 - z), sensed * (1 - z).unsqueeze(-1)
        a, by_adaptation = rho * a + z, _each(rho) * by_adaptation + eligibility
    return torch.stack(found) if found else pre.new_empty(0, *by_membrane.shape)


def _each(value: Tensor) -> Tensor:
    """One number, or one per neuron, beside a last axis of inputs."""
    return value.unsqueeze(-1) if value.dim() else value
