"""Connections that take time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.errors import ConfigError, ShapeError, StateError, nearest
from neuropil.kernels.delayed import delayed_sum
from neuropil.nn.finite import check_finite
from neuropil.nn.stateful import Stateful

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Interpolation = Literal["triangle", "gaussian"]
Bounds = Literal["sigmoid", "clamp"]


class DelayState(NamedTuple):
    """What is still under way."""

    history: Tensor  # [batch, longest delay, inputs], the last inputs, the latest at the end


class DelayLinear(Stateful):
    """A linear layer with a delay in each synapse: `y[t, o] = bias[o] + sum_i weight[o, i] x[t - delay[o, i], i]`.

    Fixed delays are whole steps. Learned ones are real numbers from 0 to `longest`: the input is read between the steps
    through a kernel around the delay, `"triangle"` (the two steps next to it, linearly) or `"gaussian"` of the standard
    deviation `width` (steps far away as well, so that the gradient sees them), which sums to one. Shrink `width` while
    training (`neuropil.spiking.SigmaSchedule`), then take `fixed()`. Hammouamri, Khalfaoui-Hassani and Masquelier
    (2024), "Learning delays in spiking neural networks using dilated convolutions with learnable spacings".

    Args:
        in_features: Number of inputs.
        out_features: Number of outputs.
        longest: Greatest delay in steps, >= 1.
        delays: Where to start, `[out_features, in_features]`; None draws them evenly.
        learn: Make the delays Parameters.
        bounds: How learned delays are kept in range: `"sigmoid"` learns the logit of `delay / longest`, `"clamp"` the
            delay itself, in steps, which counts as the nearest one in range (as published; a gradient beyond the range
            still reaches it; `clamp_()` after a step brings it back).
        interpolation: How a learned delay reads between steps.
        width: Standard deviation of the gaussian, in steps, > 0.
        bias: Whether to add one.
        generator: Draws weights and delays; None: torch's own.

    Raises:
        ConfigError: A setting is out of range or unknown.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: The input is NaN or infinite.

    >>> layer = DelayLinear(1, 1, longest=4, delays=torch.tensor([[3]]), bias=False)
    >>> _ = nn.init.ones_(layer.weight)
    >>> layer(torch.arange(1.0, 6.0).view(5, 1, 1))[0].flatten().tolist()  # [time, batch, features]
    [0.0, 0.0, 0.0, 1.0, 2.0]
    """

    fixed_delays: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        longest: int,
        *,
        delays: Tensor | None = None,
        learn: bool = False,
        bounds: Bounds = "sigmoid",
        interpolation: Interpolation = "triangle",
        width: float = 1.0,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if longest < 1:
            raise ConfigError(f"DelayLinear.longest: got {longest}, expected at least 1 step")
        for field, value, choices in (
            ("interpolation", interpolation, get_args(Interpolation)),
            ("bounds", bounds, get_args(Bounds)),
        ):
            if value not in choices:
                raise ConfigError(f"DelayLinear.{field}: got {value!r}{nearest(str(value), choices)}")
        if not (width > 0 and math.isfinite(width)):
            raise ConfigError(f"DelayLinear.width: got {width}, expected a finite number of steps > 0")
        self.in_features, self.out_features, self.longest = in_features, out_features, longest
        self.interpolation: Interpolation = interpolation
        self.width = width
        shape = (out_features, in_features)
        bound = 1 / math.sqrt(max(1, in_features))
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
        self.bias = (
            nn.Parameter(torch.empty(out_features).uniform_(-bound, bound, generator=generator))
            if bias
            else None
        )
        if delays is None:
            drawn = torch.rand(shape, generator=generator)
            delays = drawn * longest if learn else (drawn * (longest + 1)).floor().clamp(max=longest).long()
        self._check_delays(delays, shape, learn)
        self.delay: nn.Parameter | None = None
        self.delay_logit: nn.Parameter | None = None
        if learn and bounds == "clamp":
            self.delay = nn.Parameter(delays.to(self.weight.dtype).clone())
        elif learn:
            edge = 1e-3  # a delay at the very end has no gradient
            share = (delays.to(self.weight.dtype) / longest).clamp(edge, 1 - edge)
            self.delay_logit = nn.Parameter(torch.logit(share))
        self.register_buffer("fixed_delays", None if learn else delays.long().clone())

    def _check_delays(self, delays: Tensor, shape: tuple[int, int], learn: bool) -> None:
        inside = bool(((delays >= 0) & (delays <= self.longest)).all()) if delays.shape == shape else False
        if not inside or (delays.is_floating_point() and not learn):
            kind = "numbers" if learn else "integers"
            raise ConfigError(
                f"DelayLinear.delays: got {delays.dtype} of shape {list(delays.shape)}, "
                f"expected {kind} from 0 to {self.longest} of shape {list(shape)}"
            )

    @property
    def delays(self) -> Float[Tensor, "outputs inputs"] | Int[Tensor, "outputs inputs"]:
        """Delays in steps, `[out_features, in_features]`."""
        if self.delay_logit is not None:
            return self.longest * torch.sigmoid(self.delay_logit)
        if self.delay is not None:
            return self.delay + (self.delay.clamp(0, self.longest) - self.delay).detach()
        return self.fixed_delays

    @property
    def learns_delays(self) -> bool:
        """Whether the delays are Parameters."""
        return self.delay is not None or self.delay_logit is not None

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring learned delays that an optimizer has moved out of range back to its ends."""
        if self.delay is not None:
            self.delay.clamp_(0, self.longest)

    def taps(self) -> Float[Tensor, "outputs inputs taps"]:
        """The weight that each output gives each input of 0, 1, ... `longest` steps ago."""
        steps = torch.arange(self.longest + 1, device=self.weight.device, dtype=self.weight.dtype)
        if not self.learns_delays:
            share = (steps == self.fixed_delays.unsqueeze(-1)).to(self.weight.dtype)
        else:
            away = steps - self.delays.unsqueeze(-1)
            if self.interpolation == "triangle":
                share = functional.relu(1 - away.abs())
            else:
                share = torch.softmax(-0.5 * (away / self.width) ** 2, dim=-1)
        return self.weight.unsqueeze(-1) * share

    def fixed(self) -> DelayLinear:
        """The layer with its delays rounded to whole steps, its weights shared with this one."""
        whole = self.delays.detach().round().long()
        twin = DelayLinear(
            self.in_features, self.out_features, self.longest, delays=whole, bias=self.bias is not None,
            generator=torch.Generator(),
        )  # fmt: skip
        twin.weight, twin.bias = self.weight, self.bias
        return twin

    def initial_state(self, x: Tensor) -> DelayState:
        """Nothing under way, for `x` of shape `[time, batch, in_features]`."""
        return DelayState(x.new_zeros(x.shape[1], self.longest, self.in_features))

    def check_state(self, state: Any, x: Tensor) -> None:
        """Refuse a state of another batch or layer."""
        wanted = [x.shape[1], self.longest, self.in_features]
        if not isinstance(state, DelayState) or list(state.history.shape) != wanted:
            got = list(state.history.shape) if isinstance(state, DelayState) else type(state).__name__
            raise StateError(
                f"DelayLinear: state is {got}, the input needs {wanted} ([batch, longest delay, inputs]); "
                "pass state=None to start at rest"
            )

    def forward(
        self, x: Float[Tensor, "time batch inputs"], state: DelayState | None = None
    ) -> tuple[Float[Tensor, "time batch outputs"], DelayState]:
        """Weighted sums of delayed inputs, and the inputs that are still under way."""
        if x.dim() != 3 or x.shape[2] != self.in_features:
            raise ShapeError(
                f"DelayLinear: input has shape {list(x.shape)}, expected [time, batch, {self.in_features}]"
            )
        check_finite(x, "DelayLinear input")
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        line = torch.cat([state.history.transpose(0, 1), x])  # [longest + time, batch, in]
        after = DelayState(line[len(x) :].transpose(0, 1))
        if len(x) == 0:
            return x.new_zeros(0, x.shape[1], self.out_features), after
        y = delayed_sum(line, self.taps())
        return y if self.bias is None else y + self.bias, after

    def extra_repr(self) -> str:
        """Sizes and kind of delays, for `repr`."""
        kind = "fixed" if not self.learns_delays else f"learned, {self.interpolation}"
        return f"{self.in_features}, {self.out_features}, longest={self.longest}, delays={kind}"
