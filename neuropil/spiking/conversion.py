"""A trained ReLU network whose units speak in spikes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn.finite import check_finite
from neuropil.nn.integrator import describe
from neuropil.nn.lif import IF, LIFState
from neuropil.nn.sharing import shared_copy
from neuropil.nn.surrogate import Sigmoid

if TYPE_CHECKING:
    from jaxtyping import Float

# Not what the mean over time of spikes goes through unchanged; each with what to put in its place.
_FOREIGN = {
    "max_pool1d": "average pooling",
    "max_pool2d": "average pooling",
    "max_pool3d": "average pooling",
    "adaptive_max_pool2d": "average pooling",
    "relu6": "nn.ReLU",
    "leaky_relu": "nn.ReLU",
    "elu": "nn.ReLU",
    "gelu": "nn.ReLU",
    "silu": "nn.ReLU",
    "mish": "nn.ReLU",
    "hardswish": "nn.ReLU",
    "softplus": "nn.ReLU",
    "prelu": "nn.ReLU",
    "sigmoid": "nn.ReLU",
    "tanh": "nn.ReLU",
    "softmax": "nothing (its logits)",
    "log_softmax": "nothing (its logits)",
    "layer_norm": "batch normalisation",
    "group_norm": "batch normalisation",
    "scaled_dot_product_attention": "a network without attention",
    "relu": "a module nn.ReLU for each",
    "relu_": "a module nn.ReLU for each",
}


class SpikingReLU(nn.Module):
    """Integrate-and-fire neurons in the place of a ReLU: their mean over time is `clamp(x, 0, scale)`.

    `x` is `[time * batch, ...]`, time the slower. A neuron gives `scale` at each of its spikes, fires at `scale`, and
    keeps what lies above when it resets. It starts half charged, so that a constant input is answered by the nearest
    number of spikes, at most `scale / (2 * time_steps)` off.

    Args:
        scale: Largest activation to be told, > 0: one number, or one per channel, `[channels, 1, ...]`.
        time_steps: Steps of a sequence.

    Raises ConfigError for a scale that is not positive, ShapeError for a batch that is not whole sequences.

    >>> import torch
    >>> x = torch.tensor([-1.0, 0.26, 0.5, 3.0]).expand(4, 4)  # four steps, a batch of one
    >>> SpikingReLU(1.0, time_steps=4)(x).mean(0).tolist()
    [0.0, 0.25, 0.5, 1.0]
    """

    def __init__(self, scale: float | Tensor, time_steps: int) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.cells = IF(scale, surrogate=Sigmoid(4.0))
        self.cells.to(self.cells.threshold.dtype)

    def forward(self, x: Float[Tensor, "time_batch ..."]) -> Float[Tensor, "time_batch ..."]:
        """Spikes times the scale."""
        if len(x) % self.time_steps:
            raise ShapeError(
                f"SpikingReLU: got {len(x)} rows, expected whole sequences of {self.time_steps} steps"
            )
        steps = x.unflatten(0, (self.time_steps, -1))
        scale = self.cells.threshold.detach().to(x.dtype)
        spikes, _ = self.cells(steps, LIFState((scale / 2).expand(steps.shape[1:]).contiguous()))
        given: Tensor = (scale * spikes).flatten(0, 1)
        return given

    def extra_repr(self) -> str:
        """Scale and steps, for `repr`."""
        return f"{describe('scale', self.cells.threshold)}, time_steps={self.time_steps}"


class RateCoded(nn.Module):
    """A model of spiking units that is shown a static input for some steps and answers with its mean output.

    Made by `convert_to_spikes`. `model` is the user's own, with spiking units; `x` is `[batch, ...]`.

    >>> import torch
    >>> RateCoded(nn.Sequential(SpikingReLU(1.0, 8)), 8)(torch.tensor([[0.25, -1.0]]))
    tensor([[0.2500, 0.0000]])
    """

    def __init__(self, model: nn.Module, time_steps: int) -> None:
        super().__init__()
        self.model, self.steps = model, time_steps

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Mean over time of what the model answers."""
        return self.unroll(x).mean(0)

    def unroll(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "time batch ..."]:
        """What the model answers at every step."""
        y: Tensor = self.model(x.expand(self.steps, *x.shape).flatten(0, 1))
        steps: Tensor = y.unflatten(0, (self.steps, -1))
        return steps

    def for_steps(self, time_steps: int) -> RateCoded:
        """The same network, its tensors shared, for another number of steps."""
        _check_steps("RateCoded.for_steps", time_steps)
        twin = shared_copy(self)
        twin.steps = time_steps
        for layer in twin.modules():
            if isinstance(layer, SpikingReLU):
                layer.time_steps = time_steps
        return twin


def convert_to_spikes(
    model: nn.Module,
    calibration: Tensor,
    *,
    time_steps: int = 64,
    percentile: float = 99.9,
    per_channel: bool = False,
) -> RateCoded:
    """Every `nn.ReLU` of a trained model becomes a layer of spiking neurons; all other tensors are shared.

    Each layer's neurons fire at, and speak in units of, a robust maximum of its activations: the `percentile` of them
    over `calibration` inputs. (Multiplied into the weights that follow and divided out of those before, this is the
    usual normalisation of weights.) A threshold too high makes rates slow to tell small activations, one too low cuts
    off large ones. As `time_steps` grows the answer becomes the model's, up to what the percentile cuts off, roughly
    as `1 / time_steps`. Batch normalisation belongs in evaluation mode; average pooling, dropout, linear layers,
    convolutions and skips are left as they are.

    Diehl et al. (2015), "Fast-classifying, high-accuracy spiking deep networks through weight and threshold
    balancing"; Rueckauer et al. (2017), "Conversion of continuous-valued deep networks to efficient event-driven
    networks", for the percentile and the reset by subtraction.

    Args:
        model: Any module from `[batch, ...]` to `[batch, ...]` whose nonlinearities are modules `nn.ReLU`.
        calibration: Inputs like those to come, a few hundred.
        time_steps: Steps that an input is shown for.
        percentile: Of the positive activations of a layer, in (0, 100].
        per_channel: One threshold for each channel (axis 1) instead of one for each layer.

    Raises:
        ConfigError: The model has no ReLU, or a nonlinearity that spikes cannot stand for; a setting out of range.
        NonFiniteError: The calibration inputs hold NaN or infinity.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> x = torch.rand(50, 4)
    >>> spiking = convert_to_spikes(net, x, time_steps=256, percentile=100.0)
    >>> bool((spiking(x) - net(x)).abs().max() < 0.02)
    True
    """
    _check_steps("convert_to_spikes", time_steps)
    if not 0 < percentile <= 100:
        raise ConfigError(f"convert_to_spikes: percentile={percentile}, expected a number in (0, 100]")
    check_finite(calibration, "convert_to_spikes calibration")
    metered = shared_copy(model)
    meters = {name: _Meter() for name, _ in _rectifiers(model)}
    if not meters:
        raise ConfigError(f"convert_to_spikes: {type(model).__name__} has no nn.ReLU to convert")
    metered = _replaced(metered, meters).eval()
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), calibration.dtype)
    with torch.no_grad(), _Watch(type(model).__name__):
        metered(calibration.to(dtype))
    scales = {name: meter.scale(percentile, per_channel) for name, meter in meters.items() if meter.seen}
    spiking = _replaced(
        shared_copy(model), {name: SpikingReLU(scale, time_steps) for name, scale in scales.items()}
    )
    return RateCoded(spiking, time_steps).train(model.training)


class _Meter(nn.Module):
    """A ReLU that remembers what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        y = x.clamp(min=0)
        self.seen.append(y)
        return y

    def scale(self, percentile: float, per_channel: bool) -> Tensor:
        """The percentile of what was positive; one where nothing was."""
        y = torch.cat(self.seen)
        if not per_channel or y.dim() < 2:
            return _percentile(y.flatten(), percentile)
        scales = torch.stack([_percentile(channel.flatten(), percentile) for channel in y.unbind(1)])
        return scales.reshape(-1, *[1] * (y.dim() - 2))


class _Watch(TorchFunctionMode):
    """Refuses calls that spikes cannot stand for."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _FOREIGN:
            raise ConfigError(
                f"convert_to_spikes: {self.label} calls {name}, which spikes cannot stand for; "
                f"put {_FOREIGN[name]} in its place"
            )
        return func(*args, **(kwargs or {}))


def _percentile(values: Tensor, percentile: float) -> Tensor:
    positive = values[values > 0]
    if not len(positive):
        return values.new_ones(())
    rank = max(1, math.ceil(percentile / 100 * len(positive)))
    return positive.kthvalue(rank).values


def _rectifiers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, m) for name, m in model.named_modules(remove_duplicate=False) if isinstance(m, nn.ReLU)]


def _replaced(model: nn.Module, parts: dict[str, Any]) -> nn.Module:
    """`model` with the modules of these names replaced, in place."""
    for name, part in parts.items():
        if not name:
            return part  # type: ignore[no-any-return]
        parent, _, own = name.rpartition(".")
        model.get_submodule(parent).register_module(own, part)
    return model


def _check_steps(caller: str, time_steps: int) -> None:
    if isinstance(time_steps, bool) or not isinstance(time_steps, int) or time_steps < 1:
        raise ConfigError(f"{caller}: time_steps={time_steps!r}, expected a whole number of 1 or more")
