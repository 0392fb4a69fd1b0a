"""Numbers as spikes: rate, latency, delta, level-crossing and population codes.

Values come as `[batch, ...features]`, signals that last as `[time, batch, ...features]`; spikes go out time first,
`[time, batch, ...]`, as 0 and 1 in the dtype of the input (level crossings as counts). Nothing here has a gradient.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuropil.errors import ConfigError, DataError, ShapeError

if TYPE_CHECKING:
    from jaxtyping import Float


@torch.no_grad()
def rate_encode(
    x: Float[Tensor, "batch ..."], time_steps: int, *, generator: torch.Generator | None = None
) -> Float[Tensor, "time batch ..."]:
    """Each value in [0, 1] as the probability of a spike in every step (Bernoulli).

    Raises ConfigError for fewer than 1 step, DataError for values outside [0, 1].

    >>> spikes = rate_encode(torch.tensor([[0.0, 1.0]]), 3, generator=torch.Generator().manual_seed(0))
    >>> spikes[:, 0].tolist()
    [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    """
    _check_steps("rate_encode", time_steps)
    _check_range("rate_encode", x)
    return _draw(x, time_steps, generator)


@torch.no_grad()
def poisson_encode(
    rates: Float[Tensor, "batch ..."],
    time_steps: int,
    *,
    step: float = 1e-3,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "time batch ..."]:
    """Poisson processes of `rates` in Hz, seen in steps of `step` seconds: 1 where at least one spike fell.

    The probability is `1 - exp(-rate * step)`, so no rate is too high. Raises ConfigError for fewer than 1 step or a
    step that is not positive, DataError for a rate that is negative or not finite.

    >>> poisson_encode(torch.tensor([[0.0, 1e9]]), 1).tolist()
    [[[0.0, 1.0]]]
    """
    _check_steps("poisson_encode", time_steps)
    if not step > 0:
        raise ConfigError(f"poisson_encode.step: got {step}, expected seconds > 0")
    _check_range("poisson_encode", rates, maximum=math.inf)
    return _draw(-torch.expm1(-rates * step), time_steps, generator)


@torch.no_grad()
def latency_encode(
    x: Float[Tensor, "batch ..."],
    time_steps: int,
    *,
    time_constant: float | None = None,
    threshold: float = 0.01,
) -> Float[Tensor, "time batch ..."]:
    """One spike per value: the larger the value in [0, 1], the earlier; below `threshold` there is none.

    Without `time_constant` the time falls linearly, from step 0 for 1 to the last step for `threshold`. With it, in
    steps, the time is that at which a leaky membrane driven by the value reaches the threshold,
    `time_constant * log(x / (x - threshold))`, and spikes that would come after the last step are left out.

    Raises ConfigError for settings out of range, DataError for values outside [0, 1].

    >>> latency_encode(torch.tensor([[1.0, 0.5, 0.0]]), 3, threshold=0.0001)[:, 0].argmax(0).tolist()
    [0, 1, 0]
    """
    _check_steps("latency_encode", time_steps)
    if not 0 < threshold < 1:
        raise ConfigError(f"latency_encode.threshold: got {threshold}, expected a number in (0, 1)")
    if time_constant is not None and not 0 < time_constant < math.inf:
        raise ConfigError(f"latency_encode.time_constant: got {time_constant}, expected steps > 0 or None")
    _check_range("latency_encode", x)
    if time_constant is None:
        times = ((1 - x) / (1 - threshold) * (time_steps - 1)).round()
        fires = x >= threshold
    else:
        fires = x > threshold
        times = (time_constant * torch.log(x / (x - threshold).clamp_min(1e-12))).round()
        fires = fires & (times < time_steps)
    steps = torch.arange(time_steps, device=x.device, dtype=x.dtype).view(-1, *[1] * x.dim())
    return ((steps == times) & fires).to(x.dtype)


@torch.no_grad()
def delta_encode(x: Float[Tensor, "time batch ..."], threshold: float) -> Float[Tensor, "time batch 2 ..."]:
    """Spikes where a signal changed by `threshold` or more in one step: `[:, :, 0]` upwards, `[:, :, 1]` downwards.

    The first step has nothing before it and gives no spike. Slow changes are never seen; `level_encode` sees them.
    Raises ConfigError unless the threshold is positive, ShapeError and DataError for what is no finite signal.

    >>> delta_encode(torch.tensor([[[0.0]], [[1.0]], [[0.2]], [[0.3]]]), 0.5)[:, 0, :, 0].tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """
    _check_signal("delta_encode", x, threshold)
    change = torch.diff(x, dim=0, prepend=x[:1])
    return torch.stack([change >= threshold, change <= -threshold], 2).to(x.dtype)


@torch.no_grad()
def level_encode(
    x: Float[Tensor, "time batch ..."], threshold: float, *, limit: int | None = None
) -> Float[Tensor, "time batch 2 ..."]:
    """How many levels, `threshold` apart, a signal crossed in each step: `[:, :, 0]` upwards, `[:, :, 1]` downwards.

    The levels are counted from the signal's first value (send on delta): a step gives as many events as whole
    thresholds lie between the signal and the last level it reached, and that level moves along. So the signal is
    known at every step to within one threshold: `level_decode`. With `limit`, at most that many events leave per
    step and the rest follow later; `limit=1` gives spikes.

    Raises ConfigError unless the threshold (and the limit) is positive, ShapeError, DataError as `delta_encode`.

    >>> level_encode(torch.tensor([[[0.0]], [[1.3]], [[0.2]]]), 0.5)[:, 0, :, 0].tolist()
    [[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]]
    """
    _check_signal("level_encode", x, threshold)
    if limit is not None and limit < 1:
        raise ConfigError(f"level_encode.limit: got {limit}, expected at least 1 or None")
    level = x[0].clone() if len(x) else x.new_zeros(x.shape[1:])
    events = x.new_zeros(len(x), x.shape[1], 2, *x.shape[2:])
    most = math.inf if limit is None else limit
    # a signal that sits on a level up to rounding has reached it
    slack = 16 * torch.finfo(x.dtype).eps
    for now, out in zip(x.unbind(0), events.unbind(0), strict=True):
        crossed = (now - level) / threshold
        crossed = torch.trunc(crossed + slack * crossed.sign() * (1 + now.abs() / threshold)).clamp(
            -most, most
        )
        level += crossed * threshold
        out[:, 0], out[:, 1] = crossed.clamp_min(0) + 0.0, (-crossed).clamp_min(0) + 0.0  # no negative zeros
    return events


@torch.no_grad()
def level_decode(
    events: Float[Tensor, "time batch 2 ..."],
    threshold: float,
    start: Float[Tensor, "batch ..."] | float = 0.0,
) -> Float[Tensor, "time batch ..."]:
    """The signal that `level_encode` sent, to within one threshold, from its value at the first step.

    Raises ShapeError for events of another shape.

    >>> level_decode(torch.tensor([[[[0.0], [0.0]]], [[[2.0], [0.0]]]]), 0.5).flatten().tolist()
    [0.0, 1.0]
    """
    if events.dim() < 3 or events.shape[2] != 2:
        raise ShapeError(f"level_decode: got {list(events.shape)}, expected [time, batch, 2, ...features]")
    return start + threshold * (events[:, :, 0] - events[:, :, 1]).cumsum(0)


@torch.no_grad()
def population_encode(
    x: Float[Tensor, "batch ..."],
    neurons: int,
    *,
    low: float = 0.0,
    high: float = 1.0,
    width: float = 1.5,
) -> Float[Tensor, "batch ... neurons"]:
    """Each value as the activity in [0, 1] of `neurons` neurons with Gaussian tuning curves.

    Preferred values are spread evenly from `low` to `high`; the standard deviation of a curve is the distance of
    neighbours divided by `width`. What comes out is a rate or a latency to encode further. Bohte, Kok and La Poutre
    (2002), "Error-backpropagation in temporally encoded networks of spiking neurons".

    Raises ConfigError for fewer than 2 neurons or an empty range, DataError for values that are not finite.

    >>> population_encode(torch.tensor([0.0, 0.5], dtype=torch.double), 3).argmax(-1).tolist()
    [0, 1]
    """
    if neurons < 2:
        raise ConfigError(f"population_encode.neurons: got {neurons}, expected at least 2")
    if not (low < high and width > 0):
        raise ConfigError(
            f"population_encode: low={low}, high={high}, width={width}; expected low < high and width > 0"
        )
    _check_range("population_encode", x, minimum=-math.inf, maximum=math.inf)
    preferred = torch.linspace(low, high, neurons, dtype=x.dtype, device=x.device)
    deviation = (high - low) / (neurons - 1) / width
    return torch.exp(-((x.unsqueeze(-1) - preferred) / deviation).square() / 2)


def _draw(probability: Tensor, time_steps: int, generator: torch.Generator | None) -> Tensor:
    chance = torch.rand(
        (time_steps, *probability.shape),
        generator=generator,
        dtype=probability.dtype,
        device=probability.device,
    )
    return (chance < probability).to(probability.dtype)


def _check_steps(caller: str, time_steps: int) -> None:
    if time_steps < 1:
        raise ConfigError(f"{caller}.time_steps: got {time_steps}, expected at least 1")


def _check_range(caller: str, x: Tensor, minimum: float = 0.0, maximum: float = 1.0) -> None:
    if not x.is_floating_point():
        raise DataError(f"{caller}: values are {x.dtype}, expected floats; scale bytes to [0, 1]")
    if not x.numel():
        return
    low, high = (float(value) for value in x.aminmax())
    if not (math.isfinite(low) and math.isfinite(high) and minimum <= low and high <= maximum):
        expected = "finite numbers" if minimum == -math.inf else f"numbers in [{minimum:g}, {maximum:g}]"
        raise DataError(f"{caller}: values lie in [{low:.4g}, {high:.4g}], expected {expected}")


def _check_signal(caller: str, x: Tensor, threshold: float) -> None:
    if x.dim() < 2:
        raise ShapeError(f"{caller}: got {list(x.shape)}, expected [time, batch, ...features]")
    if not 0 < threshold < math.inf:
        raise ConfigError(f"{caller}.threshold: got {threshold}, expected a number > 0")
    _check_range(caller, x, minimum=-math.inf, maximum=math.inf)
