"""Backpropagation through a limited time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from neuropil.data.task import Batch
from neuropil.errors import ConfigError, ShapeError
from neuropil.nn.readout import Readout
from neuropil.nn.sequential import Sequential
from neuropil.nn.stateful import Stateful
from neuropil.training.allowed import restrict
from neuropil.training.learner import Backprop, Loss
from neuropil.training.plugin import Plugin


class TruncatedBPTT(Backprop):
    """Backpropagation through time in windows: states go on from window to window, gradients do not.

    Williams and Peng (1990), "An efficient gradient-based algorithm for on-line training of recurrent network
    trajectories". One update reads whole sequences and makes one step. Where the model answers with a sequence, the
    loss is taken at every step, as in `OTTT`; with a readout at its end, once.

    Args:
        model: `Sequential` or another `Stateful` module. Its input is `[batch, time, ...]` here, batch first as data
            sets have it, or `[batch, ...]` where the `Sequential` has `time_steps`.
        optimizer: Over the model's parameters.
        window: Steps that gradients flow back through, at least 1.
        recompute: Keep only the states between windows and run each window again for its gradient: memory for one
            window instead of all, for one more forward pass.
        loss: As for `Backprop`, over `[batch, outputs]`.
        plugins: As for `Backprop`.

    Raises:
        ConfigError: The window is empty, or the model has no state that could be cut.
        ShapeError: The input has no time axis.
        NonFiniteError, LabelError: As `Backprop`.

    >>> from neuropil.nn import LIF, LeakyIntegrator
    >>> net = Sequential(nn.Linear(3, 8), LIF(), nn.Linear(8, 2), LeakyIntegrator(0.9))
    >>> learner = TruncatedBPTT(net, torch.optim.SGD(net.parameters(), lr=0.1), window=5)
    >>> sorted(learner.update(Batch(torch.rand(4, 20, 3), torch.tensor([0, 1, 0, 1]))))
    ['loss']
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        window: int,
        *,
        recompute: bool = False,
        loss: Loss | None = None,
        plugins: Sequence[Plugin] = (),
    ) -> None:
        super().__init__(model, optimizer, loss=loss, plugins=plugins)
        if window < 1:
            raise ConfigError(f"TruncatedBPTT.window: got {window}, expected at least 1 step")
        self.forward: nn.Module = _Windows(model, window, recompute)

    def objective(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss of the answer, or its mean over time where the answer is a sequence."""
        if output.dim() < 3:
            return super().objective(output, batch)
        logits = restrict(output, batch.classes).flatten(0, 1)
        return self.loss(logits, batch.targets.repeat(len(output)))

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """The model's answer, averaged over time if it is a sequence."""
        output = super().predict(x)
        return output.mean(0) if output.dim() > 2 else output


class _Windows(nn.Module):
    """A model that is run window by window; what follows its readout is run once."""

    def __init__(self, model: nn.Module, window: int, recompute: bool) -> None:
        super().__init__()
        self.window, self.recompute = window, recompute
        self.time_steps: int | None = getattr(model, "time_steps", None)
        self.body, self.tail = model, nn.Sequential()
        if isinstance(model, Sequential):
            layers = list(model)
            ends = next((i for i, layer in enumerate(layers) if isinstance(layer, Readout)), len(layers))
            if any(isinstance(part, Readout) for layer in layers[:ends] for part in layer.modules()):
                raise ConfigError(
                    "TruncatedBPTT: the readout is inside an inner Sequential; put it into the outer one"
                )
            self.body, self.tail = Sequential(*layers[:ends]), nn.Sequential(*layers[ends:])
        elif not isinstance(model, Stateful):
            raise ConfigError(
                f"TruncatedBPTT: {type(model).__name__} carries no state from window to window; expected a "
                "neuropil.nn.Sequential or Stateful module"
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.time_steps is not None:
            x = x.unsqueeze(0).expand(self.time_steps, *x.shape)
        elif x.dim() < 3:
            raise ShapeError(f"TruncatedBPTT: input {list(x.shape)}, expected [batch, time, ...features]")
        else:
            x = x.transpose(0, 1)
        run: Any = self.body.unroll if isinstance(self.body, Sequential) else self.body
        outputs, state = [], None
        for piece in x.split(self.window):
            if self.recompute and torch.is_grad_enabled():
                output, state = checkpoint(run, piece, state, use_reentrant=False)
            else:
                output, state = run(piece, state)
            state = cut(state)
            outputs.append(output)
        answer: Tensor = self.tail(torch.cat(outputs))
        return answer


def cut(state: Any) -> Any:
    """The same state without its history: tensors in tuples, named or not, are detached.

    >>> cut((torch.ones(1, requires_grad=True), None))
    (tensor([1.]), None)
    """
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, tuple):
        parts = [cut(part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return state
