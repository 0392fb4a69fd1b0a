"""From a node of the Neuromorphic Intermediate Representation to a module: forward Euler, one case a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError
from neuropil.kernels.lif import Reset
from neuropil.nn.axonal_delay import AxonalDelay
from neuropil.nn.elementwise import Heaviside, Scale
from neuropil.nn.graph import Graph
from neuropil.nn.integrator import LeakyIntegrator
from neuropil.nn.lif import IF, LIF
from neuropil.nn.stateful import Stateful
from neuropil.nn.synaptic import SynapticLIF
from neuropil.nn.synaptic_integrator import SynapticIntegrator
from neuropil.spiking.driven import DrivenCell

Array = Any
_ROUNDING = 3e-7, 1e-12  # relative; of a product of three numbers kept in single and in double precision


def graph_of(graph: Any, dt: float, where: str = "") -> Graph:
    """The modules of a NIRGraph, wired as it is."""
    inputs = {name for name, node in graph.nodes.items() if type(node).__name__ == "Input"}
    outputs = {name for name, node in graph.nodes.items() if type(node).__name__ == "Output"}
    for kind, names in (("Input", inputs), ("Output", outputs)):
        if len(names) != 1:
            raise ConfigError(f"from_nir: {where or 'the graph'} has {len(names)} {kind} nodes, expected one")
    layers: dict[str, nn.Module] = {}
    own = {**dict.fromkeys(inputs, "input"), **dict.fromkeys(outputs, "output")}
    for name, node in graph.nodes.items():
        if name not in own:
            # "input" and "output" name the ends of a Graph
            own[name] = f"{name}_layer" if name in ("input", "output") else name
            layers[own[name]] = module_of(node, dt, f"{where}{name}")
    return Graph(layers, [(own[a], own[b]) for a, b in graph.edges])


def module_of(node: Any, dt: float, name: str) -> nn.Module:
    """The module that computes what `node` does in steps of `dt`."""
    kind = type(node).__name__
    if kind == "NIRGraph":
        return graph_of(node, dt, f"{name}/")
    if kind not in _MODULES:
        raise ConfigError(
            f"from_nir: node {name!r} is a {kind}, which is not supported; {', '.join(sorted(_MODULES))} are"
        )
    return _MODULES[kind](node, dt, name)


def _linear(node: Any, dt: float, name: str) -> nn.Module:
    weight, bias = _tensor(node.weight), getattr(node, "bias", None)
    if weight.dim() != 2:
        raise ConfigError(
            f"from_nir: node {name!r} has a weight of shape {list(weight.shape)}, expected a matrix"
        )
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    return _filled(layer, weight, bias)


def _conv(node: Any, dt: float, name: str) -> nn.Module:
    weight, groups = _tensor(node.weight), int(node.groups)
    kind: Any = nn.Conv1d if weight.dim() == 3 else nn.Conv2d
    layer = kind(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=_plain(node.stride),
        padding=_plain(node.padding),
        dilation=_plain(node.dilation),
        groups=groups,
        bias=node.bias is not None,
    )
    return _filled(layer, weight, node.bias)


def _pool(node: Any, dt: float, name: str) -> nn.Module:
    total = 1 if type(node).__name__ == "SumPool2d" else None
    kernel, stride, padding = (_pair(value) for value in (node.kernel_size, node.stride, node.padding))
    return nn.AvgPool2d(kernel, stride, padding, divisor_override=total)


def _flatten(node: Any, dt: float, name: str) -> nn.Module:
    start, end = (int(axis) + (int(axis) >= 0) for axis in (node.start_dim, node.end_dim))
    return nn.Flatten(start, end)  # the node does not count the batch


def _scale(node: Any, dt: float, name: str) -> nn.Module:
    return Scale(_tensor(node.scale))


def _threshold(node: Any, dt: float, name: str) -> nn.Module:
    return Heaviside(_tensor(node.threshold))


def _delay(node: Any, dt: float, name: str) -> nn.Module:
    steps = np.asarray(node.delay, np.float64) / dt
    whole = steps.round()
    if (abs(steps - whole) > 1e-3).any():
        raise ConfigError(
            f"from_nir: node {name!r} delays by {steps.max():.4g} steps of dt, expected whole steps"
        )
    return AxonalDelay(torch.from_numpy(whole.astype(np.int64)))


def _integrate_and_fire(node: Any, dt: float, name: str) -> nn.Module:
    rest = _double(node.v_reset)
    cell = IF(_above(node.v_threshold, rest, name), reset=_reset(node))
    return _driven(cell, node, _double(node.r) * dt, 0 * rest, rest)


def _leaky(node: Any, dt: float, name: str) -> nn.Module:
    leak, rest = _leak(node.tau, dt, name), _double(node.v_reset)
    cell = LIF(_decay(leak), _above(node.v_threshold, rest, name), reset=_reset(node))
    return _driven(cell, node, _double(node.r) * leak, leak * (_double(node.v_leak) - rest), rest)


def _synaptic(node: Any, dt: float, name: str) -> nn.Module:
    fast, slow, rest = _leak(node.tau_syn, dt, name), _leak(node.tau_mem, dt, name), _double(node.v_reset)
    if not np.array_equal(_double(node.v_leak), rest):
        raise ConfigError(
            f"from_nir: node {name!r} (CubaLIF) leaks to {_double(node.v_leak).mean():.4g} and resets to "
            f"{rest.mean():.4g}, expected the same potential"
        )
    threshold = _above(node.v_threshold, rest, name)
    cell = SynapticLIF(_decay(fast, zero=True), _decay(slow), threshold, reset=_reset(node))
    return _driven(cell, node, _double(node.w_in) * fast * _double(node.r) * slow, 0 * rest, rest)


def _integrator(node: Any, dt: float, name: str) -> nn.Module:
    gain = _double(node.r) * dt
    return _driven(LeakyIntegrator(1.0), node, gain, 0 * gain, 0 * gain)


def _leaky_integrator(node: Any, dt: float, name: str) -> nn.Module:
    leak, rest = _leak(node.tau, dt, name), _double(node.v_leak)
    return _driven(LeakyIntegrator(_decay(leak)), node, _double(node.r) * leak, 0 * rest, rest)


def _synaptic_integrator(node: Any, dt: float, name: str) -> nn.Module:
    fast, slow, rest = _leak(node.tau_syn, dt, name), _leak(node.tau_mem, dt, name), _double(node.v_leak)
    cell = SynapticIntegrator(_decay(fast, zero=True), _decay(slow))
    return _driven(cell, node, _double(node.w_in) * fast * _double(node.r) * slow, 0 * rest, rest)


_MODULES: dict[str, Callable[[Any, float, str], nn.Module]] = {
    "Affine": _linear,
    "AvgPool2d": _pool,
    "Conv1d": _conv,
    "Conv2d": _conv,
    "CubaLI": _synaptic_integrator,
    "CubaLIF": _synaptic,
    "Delay": _delay,
    "Flatten": _flatten,
    "I": _integrator,
    "IF": _integrate_and_fire,
    "LI": _leaky_integrator,
    "LIF": _leaky,
    "Linear": _linear,
    "Scale": _scale,
    "SumPool2d": _pool,
    "Threshold": _threshold,
}


def _driven(cell: Stateful, node: Any, gain: Array, bias: Array, rest: Array) -> nn.Module:
    """The cell alone where nothing has to be put around it."""
    rounding = _ROUNDING[np.asarray(node.r).dtype == np.float64]
    if (abs(gain - 1) < rounding).all():
        gain = np.ones_like(gain)
    if (gain == 1).all() and not bias.any() and not rest.any():
        return cell
    return DrivenCell(cell, gain=_tensor(gain), bias=_tensor(bias), rest=_tensor(rest))


def _leak(tau: Array, dt: float, name: str) -> Array:
    """Share of a membrane that leaks away in a step."""
    leak = dt / _double(tau)
    if not ((leak > 0) & (leak <= 1)).all():
        raise ConfigError(
            f"from_nir: node {name!r} has a time constant of {_double(tau).min():.4g} s, expected at least a step "
            f"of dt={dt:.4g} s"
        )
    return leak


def _decay(leak: Array, *, zero: bool = False) -> Tensor:
    decay = _tensor(1 - leak)
    # a membrane keeps something: the smallest decay there is stands for none at all
    return decay if zero else decay.clamp(min=torch.finfo(decay.dtype).tiny)


def _above(threshold: Array, rest: Array, name: str) -> Tensor:
    distance = _double(threshold) - rest
    if not (distance > 0).all():
        raise ConfigError(f"from_nir: node {name!r} has a threshold at or below v_reset, expected it above")
    return _tensor(distance)


def _reset(node: Any) -> Reset:
    kind = node.metadata.get("reset", "zero")
    return "subtract" if kind in ("subtract", b"subtract") else "zero"


def _filled(layer: Any, weight: Tensor, bias: Array) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(_tensor(bias))
    filled: nn.Module = layer
    return filled


def _tensor(value: Array) -> Tensor:
    return torch.as_tensor(np.asarray(value, np.float64)).to(torch.get_default_dtype())


def _double(value: Array) -> Array:
    return np.asarray(value, np.float64)


def _pair(value: Array) -> tuple[int, int]:
    first, second = np.broadcast_to(np.asarray(value), 2).tolist()
    return int(first), int(second)


def _plain(value: Any) -> Any:
    """Numbers and tuples of them, as torch's layers take them; a word stays one."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    return int(array) if array.ndim == 0 else tuple(int(each) for each in array)
