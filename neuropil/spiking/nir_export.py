"""From a module to a node of the Neuromorphic Intermediate Representation, one case a kind of module."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError
from neuropil.nn.axonal_delay import AxonalDelay
from neuropil.nn.elementwise import Heaviside, Scale
from neuropil.nn.integrator import LeakyIntegrator
from neuropil.nn.lif import IF, LIF
from neuropil.nn.synaptic import SynapticLIF
from neuropil.nn.synaptic_integrator import SynapticIntegrator
from neuropil.spiking.driven import DrivenCell

Array = Any
SoftReset = Literal["refuse", "annotate"]
_CELLS = (LIF, IF, SynapticLIF, LeakyIntegrator, SynapticIntegrator)
_SUPPORTED = (
    "Linear, Conv1d, Conv2d, AvgPool2d, Flatten, Scale, Heaviside, AxonalDelay, DrivenCell, Graph, Recurrent, "
    "IF, LIF, SynapticLIF, LeakyIntegrator, SynapticIntegrator"
)


def node_of(
    nir: ModuleType, layer: nn.Module, name: str, shape: tuple[int, ...], dt: float, soft_reset: SoftReset
) -> Any:
    """The node of `layer`, whose input has `shape` per sample."""
    if isinstance(layer, nn.Linear):
        weight = _array(layer.weight)
        return nir.Linear(weight) if layer.bias is None else nir.Affine(weight, _array(layer.bias))
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        return _conv(nir, layer, name, shape)
    if isinstance(layer, nn.AvgPool2d):
        return _pool(nir, layer, name)
    if isinstance(layer, nn.Flatten):
        if 0 in (layer.start_dim, layer.end_dim):
            raise ConfigError(f"to_nir: layer {name!r} flattens the batch, expected start_dim of 1 or more")
        axes = (axis - (axis > 0) for axis in (layer.start_dim, layer.end_dim))
        return nir.Flatten({"input": np.array(shape)}, *axes)
    if type(layer) is Scale:
        return nir.Scale(_full(layer.scale, shape))
    if type(layer) is Heaviside:
        return nir.Threshold(_full(layer.threshold, shape))
    if type(layer) is AxonalDelay:
        return nir.Delay(_full(layer.steps, shape) * dt)
    cell: Any = layer.cell if isinstance(layer, DrivenCell) else layer
    if type(cell) in _CELLS:
        return _neuron(nir, cell, layer, name, shape, dt, soft_reset)
    raise ConfigError(
        f"to_nir: layer {name!r} is a {type(layer).__name__}, for which NIR has no node; it has one for {_SUPPORTED}"
    )


def _conv(nir: ModuleType, layer: nn.Conv1d | nn.Conv2d, name: str, shape: tuple[int, ...]) -> Any:
    if layer.padding_mode != "zeros":
        raise ConfigError(
            f"to_nir: layer {name!r} pads with {layer.padding_mode!r}, NIR pads with zeros only"
        )
    flat = isinstance(layer, nn.Conv1d)
    kind = nir.Conv1d if flat else nir.Conv2d
    stride, padding, dilation = (
        value[0] if flat and isinstance(value, tuple) else value
        for value in (layer.stride, layer.padding, layer.dilation)
    )
    weight = _array(layer.weight)
    bias = np.zeros(len(weight), weight.dtype) if layer.bias is None else _array(layer.bias)
    node = kind(
        input_shape=shape[1] if flat else tuple(shape[1:]),
        weight=weight,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=layer.groups,
        bias=bias,
    )
    # nir counts the channels of one group, and takes all kernels for square
    after = layer(torch.zeros(1, *shape, dtype=layer.weight.dtype)).shape[1:]
    node.input_type, node.output_type = {"input": np.array(shape)}, {"output": np.array(after)}
    return node


def _pool(nir: ModuleType, layer: nn.AvgPool2d, name: str) -> Any:
    kernel, stride, padding = (
        np.broadcast_to(np.array(value), 2).copy()
        for value in (layer.kernel_size, layer.stride, layer.padding)
    )
    counts_padding = layer.count_include_pad or not padding.any()
    if layer.ceil_mode or layer.divisor_override not in (None, 1) or not counts_padding:
        raise ConfigError(
            f"to_nir: layer {name!r} is an AvgPool2d with ceil_mode, a divisor or uncounted padding, "
            "which NIR cannot say"
        )
    return (nir.AvgPool2d if layer.divisor_override is None else nir.SumPool2d)(kernel, stride, padding)


def _neuron(
    nir: ModuleType,
    cell: Any,
    layer: nn.Module,
    name: str,
    shape: tuple[int, ...],
    dt: float,
    soft_reset: SoftReset,
) -> Any:
    """A neuron in continuous time whose forward Euler step of `dt` is the cell's step."""
    driven = isinstance(layer, DrivenCell)
    gain, bias, rest = (
        (_full(getattr(layer, field), shape) for field in ("gain", "bias", "rest"))
        if driven
        else (np.full(shape, value) for value in (1.0, 0.0, 0.0))
    )
    decay = _full(cell.decay, shape)
    integrates = (decay == 1).all()
    if not integrates and (decay == 1).any():
        raise ConfigError(
            f"to_nir: layer {name!r} has neurons with and without a leak; NIR has a node for either"
        )
    leak = np.ones(shape) if integrates else 1 - decay
    fields: dict[str, Array] = {}
    metadata = _metadata(cell, name, soft_reset)
    if hasattr(cell, "threshold"):
        fields |= {"v_threshold": _full(cell.threshold, shape) + rest, "v_reset": rest}
    if hasattr(cell, "current_decay"):
        if integrates or bias.any():
            raise ConfigError(
                f"to_nir: layer {name!r} is a synaptic cell without a leak or with a bias, NIR has none"
            )
        current = 1 - _full(cell.current_decay, shape)
        if not current.all():
            raise ConfigError(f"to_nir: layer {name!r} has a current that never decays, which NIR cannot say")
        fields |= {"tau_syn": dt / current, "tau_mem": dt / leak, "r": 1 / leak, "w_in": gain / current}
        fields["v_leak"] = rest
        return _built(nir.CubaLIF if "v_reset" in fields else nir.CubaLI, fields, metadata, dt, cell, driven)
    if integrates:
        if bias.any() or (rest.any() and "v_reset" not in fields):
            raise ConfigError(
                f"to_nir: layer {name!r} has no leak but a bias or a rest, which NIR cannot say"
            )
        fields["r"] = gain / dt
        return _built(nir.IF if "v_reset" in fields else nir.I, fields, metadata, dt, cell, driven)
    fields |= {"tau": dt / leak, "r": gain / leak, "v_leak": rest + bias / leak}
    if "v_reset" not in fields and bias.any():
        raise ConfigError(
            f"to_nir: layer {name!r} is an integrator with a bias; add the bias to the layer before it"
        )
    return _built(nir.LIF if "v_reset" in fields else nir.LI, fields, metadata, dt, cell, driven)


def _metadata(cell: Any, name: str, soft_reset: SoftReset) -> dict[str, str]:
    if getattr(cell, "reset", "zero") == "zero":
        return {}
    if soft_reset == "refuse":
        raise ConfigError(
            f"to_nir: layer {name!r} resets by subtraction, NIR neurons reset to a value; build it with "
            "reset='zero', or pass soft_reset='annotate' (other libraries will then reset it to a value)"
        )
    return {"reset": "subtract"}


def _built(
    kind: Any, fields: dict[str, Array], metadata: dict[str, str], dt: float, cell: Any, exact: bool
) -> Any:
    """The node in single precision where reading it gives the same cell, else in double precision."""
    if exact:
        return kind(**fields, metadata=metadata)
    single = {field: value.astype(np.float32) for field, value in fields.items()}
    for tau, decay in (("tau", "decay"), ("tau_mem", "decay"), ("tau_syn", "current_decay")):
        if tau in fields:
            read = 1 - dt / single[tau].astype(np.float64)
            held = np.broadcast_to(_array(getattr(cell, decay)), read.shape)
            if not np.array_equal(read.astype(held.dtype), held):
                single = fields
    return kind(**single, metadata=metadata)


def _array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy().copy()


def _full(tensor: Tensor, shape: tuple[int, ...]) -> Array:
    """In double precision, one number for each element of a sample."""
    return np.broadcast_to(_array(tensor).astype(np.float64), shape).copy()
