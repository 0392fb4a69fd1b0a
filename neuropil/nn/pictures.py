"""One line, one picture: rasters, membranes, rates, weights, delays, phase portraits.

Each takes a recording, a module or tensors and returns the matplotlib Axes it drew on: its own, or those given.
`axes.figure.savefig(path)` writes it. Needs matplotlib (MissingExtraError).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, ShapeError, nearest
from neuropil.nn.recording import SATURATED, Recording
from neuropil.plotting import canvas

Spikes = Recording | Tensor | Mapping[str, Tensor]

_COLOURS = ("#2f7f86", "#b5563c", "#7a6a9b", "#8a8f3c", "#3f6fa8", "#a0527a")
_GREY = "#9aa1ab"
_DIVERGING = "RdBu_r"


def raster(
    spikes: Spikes, *, layer: str | None = None, sample: int = 0, dt: float = 1.0, axes: Any = None
) -> Any:
    """Every spike of one sample, a dot at its time and neuron; the layers of a recording one above the other.

    `spikes` is a `Recording`, or tensors `[time, batch, ...features]` (or `[time, neurons]`), of which all that is not
    zero counts. `dt` is the length of a step, in the unit that the axis should have. Raises ConfigError for an unknown
    layer, ShapeError for a tensor without time and neurons.

    >>> seen = torch.eye(3)  # [time, neurons]
    >>> raster(seen).get_ylabel()
    'neuron'
    """
    layers = _layers(spikes, "spikes", layer)
    axes = _axes(axes, width=5.0)
    floor, longest = 0, 0
    for index, (name, values) in enumerate(layers.items()):
        table = _sample("raster", values, sample)
        times, neurons = table.nonzero()
        colour = _COLOURS[index % len(_COLOURS)]
        axes.plot(times * dt, neurons + floor, "|", color=colour, markersize=4, label=name, markeredgewidth=1)
        floor, longest = floor + table.shape[1], max(longest, table.shape[0])
        if index + 1 < len(layers):
            axes.axhline(floor - 0.5, color=_GREY, linewidth=0.5)
    axes.set(
        xlabel=_time(dt), ylabel="neuron", xlim=(-0.5 * dt, (longest - 0.5) * dt), ylim=(-0.5, floor - 0.5)
    )
    _legend(axes, layers)
    return axes


def membrane_traces(
    membranes: Spikes,
    *,
    layer: str | None = None,
    sample: int = 0,
    neurons: int = 5,
    threshold: float | None = None,
    dt: float = 1.0,
    axes: Any = None,
) -> Any:
    """Membranes of the first few neurons of a layer over time, with their spikes where a recording has them.

    `membranes` is a `Recording` (its first layer with a membrane, unless `layer` is named), or a tensor
    `[time, batch, ...features]` or `[time, neurons]`. Membranes are recorded after the reset. Raises ConfigError for
    an unknown layer or no neurons, ShapeError for a tensor without time and neurons.

    >>> len(membrane_traces(torch.randn(10, 4), neurons=3).lines)
    3
    """
    if neurons < 1:
        raise ConfigError(f"membrane_traces: neurons={neurons}, expected 1 or more")
    layers = _layers(membranes, "membranes", layer)
    name, values = next(iter(layers.items()))
    table = _sample("membrane_traces", values, sample)[:, :neurons]
    axes = _axes(axes, width=5.0)
    times = np.arange(len(table)) * dt
    for neuron, trace in enumerate(table.T):
        axes.plot(times, trace, linewidth=1, color=_COLOURS[neuron % len(_COLOURS)], label=f"neuron {neuron}")
    if isinstance(membranes, Recording) and name in membranes.spikes:
        fired = _sample("membrane_traces", membranes.spikes[name], sample)[:, :neurons]
        top = float(table.max())
        for neuron, spikes in enumerate(fired.T):
            at = times[spikes != 0]
            axes.plot(at, np.full(len(at), top), "|", color=_COLOURS[neuron % len(_COLOURS)], markersize=7)
    if threshold is not None:
        axes.axhline(threshold, color=_GREY, linestyle="--", linewidth=1)
    axes.set(xlabel=_time(dt), ylabel="membrane", title=name)
    return axes


def rate_histogram(spikes: Spikes, *, layer: str | None = None, bins: int = 20, axes: Any = None) -> Any:
    """How many neurons fire how often, every layer in its colour; the legend counts the silent and the saturated.

    `spikes` as for `raster`; rates are in spikes per step, over all samples. Raises ConfigError for an unknown layer,
    ShapeError for a tensor without time and neurons.

    >>> rate_histogram(torch.tensor([[0.0, 1.0], [0.0, 1.0]])).get_legend().get_texts()[0].get_text()
    'spikes: 1 of 2 silent, 1 saturated'
    """
    layers = _layers(spikes, "spikes", layer)
    axes = _axes(axes)
    for index, (name, values) in enumerate(layers.items()):
        if values.dim() < 2:
            raise ShapeError(
                f"rate_histogram: spikes {list(values.shape)}, expected [time, batch, ...] or [time, neurons]"
            )
        active = (values.detach() != 0).double()
        rates = active.mean(0 if values.dim() == 2 else (0, 1)).flatten().cpu().numpy()
        silent, full = int((rates == 0).sum()), int((rates >= SATURATED).sum())
        label = f"{name}: {silent} of {len(rates)} silent, {full} saturated"
        colour = _COLOURS[index % len(_COLOURS)]
        axes.hist(rates, bins=bins, range=(0, 1), color=colour, alpha=0.6, label=label)
    axes.set(xlabel="spikes per step", ylabel="neurons", xlim=(0, 1))
    axes.legend(frameon=False, fontsize=8)
    return axes


def weight_map(weight: nn.Module | Tensor, *, axes: Any = None) -> Any:
    """Weights as colours, red above zero and blue below, white none; kernels of a convolution side by side.

    `weight` is a module with a `weight`, or a tensor `[outputs, inputs]` or `[outputs, inputs, height, width]`. Raises
    ShapeError for another shape, ConfigError for a module without weights.

    >>> image = weight_map(nn.Linear(4, 3)).images[0]
    >>> image.get_array().shape
    (3, 4)
    """
    values = _tensor("weight_map", weight, "weight").double().cpu().numpy()
    if values.ndim == 4:
        values = _tiles(values)
        labels = {"xlabel": "input channel", "ylabel": "output channel", "xticks": [], "yticks": []}
    elif values.ndim == 2:
        labels = {"xlabel": "input", "ylabel": "output"}
    else:
        raise ShapeError(
            f"weight_map: weight {list(values.shape)}, expected [outputs, inputs] or kernels of images"
        )
    axes = _axes(axes)
    bound = float(np.nanmax(abs(values))) or 1.0
    image = axes.imshow(
        values, cmap=_DIVERGING, vmin=-bound, vmax=bound, aspect="auto", interpolation="nearest"
    )
    axes.figure.colorbar(image, ax=axes, label="weight")
    axes.set(**labels)
    return axes


def delay_map(delays: nn.Module | Tensor, *, dt: float = 1.0, axes: Any = None) -> Any:
    """Delays as colours, of each connection `[outputs, inputs]` or of each neuron `[neurons]`.

    `delays` is a module with `delays` (or `steps`), or a tensor, in steps of `dt`. Raises ShapeError for another shape,
    ConfigError for a module without delays.

    >>> delay_map(torch.tensor([[0, 3], [1, 2]])).images[0].get_array().max()
    np.float64(3.0)
    """
    values = _tensor("delay_map", delays, "delays", "steps").double().cpu().numpy() * dt
    if values.ndim not in (1, 2):
        raise ShapeError(f"delay_map: delays {list(values.shape)}, expected [outputs, inputs] or [neurons]")
    axes = _axes(axes)
    table = np.atleast_2d(values)
    image = axes.imshow(table, cmap="viridis", vmin=0, aspect="auto", interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, label="delay (steps)" if dt == 1 else "delay")
    labels = (
        {"xlabel": "input", "ylabel": "output"} if values.ndim == 2 else {"xlabel": "neuron", "yticks": []}
    )
    axes.set(**labels)
    return axes


def phase_portrait(
    x: Tensor,
    y: Tensor,
    *,
    derivative: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    names: tuple[str, str] = ("x", "y"),
    points: int = 25,
    axes: Any = None,
) -> Any:
    """Two state variables against each other, with the flow and its nullclines where the equations are given.

    `x` and `y` are trajectories `[time]` or `[time, trajectories]` (a membrane and its recovery, two principal axes of
    a population); each begins at its dot. `derivative(x, y)` gives how fast both change, for grids of values; where
    one does not change is its nullcline. Raises ShapeError when the two are not of one shape.

    >>> t = torch.linspace(0, 6.28, 50)
    >>> axes = phase_portrait(t.cos(), t.sin(), derivative=lambda x, y: (-y, x), names=("v", "w"))
    >>> axes.get_xlabel(), len(axes.lines)
    ('v', 2)
    """
    if x.shape != y.shape or x.dim() not in (1, 2) or not x.numel():
        raise ShapeError(
            f"phase_portrait: x {list(x.shape)}, y {list(y.shape)}, expected both [time, (trajectories)]"
        )
    across, up = (value.detach().cpu().double().reshape(len(value), -1).numpy() for value in (x, y))
    axes = _axes(axes, height=3.6)
    for index in range(across.shape[1]):
        colour = _COLOURS[index % len(_COLOURS)]
        axes.plot(across[:, index], up[:, index], color=colour, linewidth=1)
        axes.plot(across[:1, index], up[:1, index], "o", color=colour, markersize=4)
    if derivative is not None:
        _flow(axes, derivative, (across, up), points)
    axes.set(xlabel=names[0], ylabel=names[1])
    return axes


def _flow(
    axes: Any, derivative: Callable[..., tuple[Tensor, Tensor]], seen: tuple[Any, Any], points: int
) -> None:
    spans = [(values.min(), values.max(), float(np.ptp(values)) or 1.0) for values in seen]
    lines = [
        torch.linspace(low - 0.15 * span, high + 0.15 * span, points).double() for low, high, span in spans
    ]
    across, up = torch.meshgrid(*lines, indexing="xy")
    with torch.no_grad():
        dx, dy = (value.cpu().numpy() for value in derivative(across, up))
    grid = across.numpy(), up.numpy()
    lengths = np.hypot(dx / spans[0][2], dy / spans[1][2])
    lengths[lengths == 0] = 1.0
    axes.quiver(*grid, dx / lengths, dy / lengths, color=_GREY, angles="xy", width=0.002, zorder=0)
    for change, colour in ((dx, _COLOURS[1]), (dy, _COLOURS[2])):
        if change.min() < 0 < change.max():
            axes.contour(*grid, change, levels=[0.0], colors=[colour], linewidths=1, linestyles="--")


def _layers(given: Spikes, field: str, layer: str | None) -> dict[str, Tensor]:
    """What to draw, by name."""
    if isinstance(given, Tensor):
        return {layer or field: given}
    known: Mapping[str, Tensor] = getattr(given, field) if isinstance(given, Recording) else given
    if not known:
        raise ConfigError(f"nothing to draw: the recording has no {field}")
    if layer is None:
        return dict(known)
    if layer not in known:
        raise ConfigError(f"no layer {layer!r} has {field}{nearest(layer, known)}")
    return {layer: known[layer]}


def _sample(caller: str, values: Tensor, sample: int) -> Any:
    """`[time, neurons]` of one sample."""
    if values.dim() < 2:
        raise ShapeError(
            f"{caller}: got {list(values.shape)}, expected [time, batch, ...features] or [time, neurons]"
        )
    values = values.detach().cpu()
    if values.dim() == 2:
        return values.double().numpy()
    if not -values.shape[1] <= sample < values.shape[1]:
        raise ShapeError(f"{caller}: sample {sample} of a batch of {values.shape[1]}")
    return values[:, sample].flatten(1).double().numpy()


def _tensor(caller: str, given: nn.Module | Tensor, *fields: str) -> Tensor:
    if isinstance(given, Tensor):
        return given.detach().to_dense() if given.layout != torch.strided else given.detach()
    for field in fields:
        value = getattr(given, field, None)
        if isinstance(value, Tensor):
            return value.detach()
    raise ConfigError(f"{caller}: {type(given).__name__} has no {' or '.join(fields)}")


def _tiles(kernels: Any) -> Any:
    """Kernels `[outputs, inputs, height, width]` in rows and columns, a gap between."""
    outputs, inputs, height, width = kernels.shape
    table = np.full((outputs * (height + 1) - 1, inputs * (width + 1) - 1), np.nan)
    for out in range(outputs):
        for into in range(inputs):
            rows, columns = out * (height + 1), into * (width + 1)
            table[rows : rows + height, columns : columns + width] = kernels[out, into]
    return table


def _axes(axes: Any, *, width: float = 4.0, height: float = 3.0) -> Any:
    return canvas(width=width, height=height).axes[0] if axes is None else axes


def _time(dt: float) -> str:
    return "time step" if dt == 1 else "time"


def _legend(axes: Any, layers: Mapping[str, Any]) -> None:
    if len(layers) > 1:
        axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(layers))
    else:
        axes.set_title(next(iter(layers)))
