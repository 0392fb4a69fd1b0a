"""Synapses that learn online, from a trace of their past input instead of from backpropagation through time.

Online training through time (Xiao, Meng, Zhang, He and Lin 2022, Online Training Through Time for Spiking
Neural Networks): a step's gradient reaches no earlier step; what earlier spikes contributed to it is kept
forward in time, in one trace per presynaptic neuron.

    a[t] = decay * a[t-1] + s[t]
    y[t] = W s[t] + b
    grad W = sum_t g[t] a[t]^T        grad s[t] = W^T g[t]

Together with neurons that cut the gradient through time (`LIF(..., temporal_gradient=False)`) and the same
decay, one backward pass over a sequence gives what a pass per step would add up to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, ShapeError
from neuropil.kernels.leaky import leaky_scan
from neuropil.nn.finite import check_finite
from neuropil.nn.stateful import Stateful
from neuropil.nn.synapse import synaptic_conv2d, synaptic_linear

if TYPE_CHECKING:
    from jaxtyping import Float


class TraceState(NamedTuple):
    """What a traced synapse carries from one step to the next."""

    trace: Tensor  # [batch, ...features], of the presynaptic neurons


class _Traced(Stateful):
    """The part that traced layers share."""

    decay: float
    presynaptic: nn.Module

    def initial_state(self, x: Tensor) -> TraceState:
        """A trace of zeros for `x` of shape `[time, batch, ...features]`."""
        return TraceState(x.detach().new_zeros(x.shape[1:]))

    def extra_repr(self) -> str:
        """The layer's own settings and the decay, for printing."""
        return f"{super().extra_repr()}, decay={self.decay:g}"

    def _set_up(self, decay: float) -> None:
        if not 0 <= decay <= 1:
            raise ConfigError(f"{type(self).__name__}.decay: got {decay}, expected a number in [0, 1]")
        self.decay = float(decay)
        # what multiplies the error passes through here, so that others can look at it or change it
        self.presynaptic = nn.Identity()

    def _traces(self, spikes: Tensor, state: TraceState | None) -> tuple[Tensor, TraceState]:
        """The presynaptic factor of every step, and the state after the last."""
        if state is None:
            state = self.initial_state(spikes)
        self.check_state(state, spikes)
        with torch.no_grad():
            factor, trace = leaky_scan(spikes.detach(), state.trace, spikes.new_tensor(self.decay))
        # NaN and infinity never leave a trace, so its last value answers for the whole sequence
        check_finite(trace, f"{type(self).__name__}: presynaptic trace")
        return self.presynaptic(factor), TraceState(trace)


class TracedLinear(_Traced, nn.Linear):
    """`nn.Linear` over time that learns from the trace of its input.

    `decay` in [0, 1] is the share of the trace kept per step, that of the neurons which follow. The trace
    passes through the child `presynaptic` (an identity), where hooks can see or replace it.

    Raises ConfigError for a decay out of range, ShapeError for a wrong number of features, StateError for a
    state of another batch.

    >>> layer = TracedLinear(4, 3, decay=0.5)
    >>> currents, state = layer(torch.ones(2, 1, 4))  # [time, batch, features]
    >>> currents.shape, state.trace
    (torch.Size([2, 1, 3]), tensor([[1.5000, 1.5000, 1.5000, 1.5000]]))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        decay: float,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Linear.__init__(self, in_features, out_features, bias, device=device, dtype=dtype)
        self._set_up(decay)

    def forward(  # type: ignore[override]
        self, spikes: Float[Tensor, "time batch inputs"], state: TraceState | None = None
    ) -> tuple[Float[Tensor, "time batch outputs"], TraceState]:
        """Currents of every step, and the state after the last."""
        if spikes.dim() < 3 or spikes.shape[-1] != self.in_features:
            raise ShapeError(
                f"{type(self).__name__}: got {list(spikes.shape)}, "
                f"expected [time, batch, ..., {self.in_features}]"
            )
        factor, state = self._traces(spikes, state)
        y = synaptic_linear(spikes, self.weight, self.bias, presynaptic=factor, feedback=self.weight)
        return y, state


class TracedConv2d(_Traced, nn.Conv2d):
    """`nn.Conv2d` over time that learns from the trace of its input.

    Takes every setting of `nn.Conv2d`; `decay` and errors are those of `TracedLinear`.

    >>> layer = TracedConv2d(1, 2, 3, decay=0.5)
    >>> currents, state = layer(torch.ones(2, 1, 1, 5, 5))  # [time, batch, channels, height, width]
    >>> currents.shape, state.trace.shape
    (torch.Size([2, 1, 2, 3, 3]), torch.Size([1, 1, 5, 5]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *args: Any,
        decay: float,
        **settings: Any,
    ) -> None:
        nn.Conv2d.__init__(self, in_channels, out_channels, kernel_size, *args, **settings)
        self._set_up(decay)

    def forward(  # type: ignore[override]
        self, spikes: Float[Tensor, "time batch inputs height width"], state: TraceState | None = None
    ) -> tuple[Float[Tensor, "time batch outputs height_out width_out"], TraceState]:
        """Currents of every step, and the state after the last."""
        if spikes.dim() != 5 or spikes.shape[2] != self.in_channels:
            raise ShapeError(
                f"{type(self).__name__}: got {list(spikes.shape)}, "
                f"expected [time, batch, {self.in_channels}, height, width]"
            )
        factor, state = self._traces(spikes, state)
        folded = spikes.flatten(0, 1)
        y = synaptic_conv2d(self, folded, presynaptic=factor.flatten(0, 1), feedback=self.weight)
        return y.reshape(*spikes.shape[:2], *y.shape[1:]), state
