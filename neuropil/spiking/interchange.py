"""Models to and from the Neuromorphic Intermediate Representation (NIR), which other libraries and chips read."""

from __future__ import annotations

import importlib
import itertools
import math
import operator
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, fx, nn

from neuropil.errors import ConfigError, MissingExtraError, ShapeError, nearest
from neuropil.nn.graph import INPUT, OUTPUT, Graph
from neuropil.nn.readout import MembraneReadout, Readout
from neuropil.nn.recurrent import Recurrent
from neuropil.nn.sequential import Sequential
from neuropil.nn.stateful import Stateful
from neuropil.spiking.nir_export import SoftReset, node_of
from neuropil.spiking.nir_import import graph_of

Edge = tuple[str, str]
_SKIPPED = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)


def from_nir(graph: Any, *, dt: float = 1e-4) -> Graph:
    """A module that runs a NIR graph in steps of `dt` seconds, its layers named as the nodes.

    Neurons are stepped by forward Euler, `v += dt / tau * (v_leak - v + r * x)`, currents before membranes, as
    snnTorch, Norse and SpikingJelly do, whose `dt` this is by default (Norse: 1e-3). They start at their reset
    potential (integrators at their leak potential) and fire at `v >= v_threshold`. Loops come back one step later.
    A reset by subtraction is read from the metadata that `to_nir` writes. Numbers are of torch's default dtype.

    Args:
        graph: A `nir.NIRGraph`, or the path of one that `nir.write` wrote.
        dt: Length of a step in seconds, > 0.

    Raises:
        ConfigError: A node is not supported or cannot run in steps of `dt`.
        MissingExtraError: A path was given and nir is not installed.

    Pedersen et al. (2024), "Neuromorphic intermediate representation: a unified instruction set for interoperable
    brain-inspired computing".

    >>> import torch
    >>> from neuropil.nn import LIF, Sequential
    >>> net = Sequential(nn.Linear(3, 4), LIF(0.9, reset="zero"))
    >>> same = from_nir(to_nir(net, (3,)))
    >>> x = torch.randn(8, 2, 3)  # [time, batch, features]
    >>> torch.equal(same(x)[0], net(x))
    True
    """
    _check_dt("from_nir", dt)
    if not hasattr(graph, "nodes"):
        graph = _nir().read(graph, type_check=False)  # which miscounts the channels of grouped convolutions
    return graph_of(graph, dt)


def to_nir(
    model: nn.Module, sample_shape: Sequence[int], *, dt: float = 1e-4, soft_reset: SoftReset = "refuse"
) -> Any:
    """The NIR graph of a model whose samples have `sample_shape` (without time and batch).

    Works for `Sequential` and `torch.nn.Sequential`, `Graph`, `Recurrent`, a single layer, and any module of your own
    that `torch.fx` can trace and that calls layers, takes the output of a stateful one and adds signals. Dropout and
    identities are left out, and so is a readout at the end, which is no dynamical system (of a membrane readout
    the integrator stays). A neuron's decay `d` becomes `tau = dt / (1 - d)`, with `r` such that its input counts as
    it does here. `nir.write(path, graph)` saves it.

    Args:
        model: In any mode; its weights are copied.
        sample_shape: Shape of one sample at one step.
        dt: Length of a step in seconds, > 0.
        soft_reset: NIR has no reset by subtraction: `"refuse"` such neurons, or `"annotate"` them, for `from_nir`
            to read; other libraries reset them to a value.

    Raises:
        ConfigError: A layer has no node in NIR, or the model cannot be traced.
        ShapeError: `sample_shape` does not fit the model.
        MissingExtraError: nir is not installed.

    >>> from neuropil.nn import LIF, RateReadout, Sequential
    >>> net = Sequential(nn.Linear(3, 4), LIF(0.9, reset="zero"), RateReadout())
    >>> sorted(to_nir(net, (3,)).nodes)
    ['0', '1', 'input', 'output']
    """
    _check_dt("to_nir", dt)
    if soft_reset not in get_args(SoftReset):
        raise ConfigError(f"to_nir: soft_reset={soft_reset!r}{nearest(str(soft_reset), get_args(SoftReset))}")
    nir = _nir()
    return _written(nir, _plan(model), tuple(int(size) for size in sample_shape), dt, soft_reset)


class _Plan(NamedTuple):
    """Layers by name and how they are wired."""

    layers: dict[str, nn.Module]
    edges: list[Edge]


def _plan(model: nn.Module) -> _Plan:
    if isinstance(model, Graph):
        return _Plan({name: model[name] for name in model.names}, list(model.edges))
    if isinstance(model, Recurrent):
        loop = [("cell", "weights"), ("weights", "cell")]
        return _Plan({"cell": model.cell, "weights": model.weights}, [(INPUT, "cell"), *loop, ("cell", OUTPUT)])
    if isinstance(model, nn.Sequential) or _is_leaf(model):
        chain = list(_chain("", model))
        names = [INPUT, *(name for name, _ in chain), OUTPUT]
        return _Plan(dict(chain), list(itertools.pairwise(names)))
    return _traced(model)


def _chain(prefix: str, layer: nn.Module) -> list[tuple[str, nn.Module]]:
    """A row of layers, nested rows laid out flat."""
    if isinstance(layer, nn.Sequential):
        inner = ((f"{prefix}.{name}" if prefix else name, each) for name, each in layer._modules.items())
        rows = (_chain(name, each) for name, each in inner if each is not None)
        return [each for row in rows for each in row]
    if isinstance(layer, MembraneReadout):
        return [(prefix or "readout", layer.integrator)]
    if isinstance(layer, (Readout, *_SKIPPED)):
        return []
    return [(prefix or "layer", layer)]


def _is_leaf(module: nn.Module) -> bool:
    own = isinstance(module, Stateful | Readout | nn.Sequential)
    return own or type(module).__module__.startswith(("torch.nn", "neuropil."))


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_leaf(m)


def _traced(model: nn.Module) -> _Plan:
    """The layers that a module of the user's own calls, by following its forward pass symbolically."""
    label = type(model).__name__
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # whatever the user's forward raises on a symbolic input
        first = str(error).partition("\n")[0]
        raise ConfigError(f"to_nir: torch.fx cannot trace {label}: {first}") from error
    plan, signals = _Plan({}, []), dict[fx.Node, list[str]]()
    for node in graph.nodes:
        if node.op == "placeholder":
            signals[node] = [INPUT] if not signals else []
        elif node.op == "call_module":
            signals[node] = _called(model, node, signals, plan)
        elif node.op == "call_function" and node.target is operator.getitem:
            signals[node] = signals.get(node.args[0], []) if node.args[1] == 0 else []
        elif node.target in (operator.add, torch.add, "add"):
            signals[node] = [name for each in node.args for name in signals.get(each, [])]
        elif node.op == "output":
            result = node.args[0]
            result = result[0] if isinstance(result, tuple) else result
            plan.edges.extend((name, OUTPUT) for name in signals.get(result, []))
        else:
            raise ConfigError(
                f"to_nir: {label} calls {node.target!s:.60}, which NIR cannot say; make it a layer"
            )
    return plan


def _called(model: nn.Module, node: Any, signals: dict[Any, list[str]], plan: _Plan) -> list[str]:
    sources = signals.get(node.args[0], []) if node.args else []
    if not sources:
        raise ConfigError(f"to_nir: layer {node.target!r} is not driven by the model's input")
    for name, layer in _chain(node.target, model.get_submodule(node.target)):
        if name in plan.layers:
            raise ConfigError(f"to_nir: layer {name!r} is called twice, a node of NIR has one place")
        plan.layers[name] = layer
        plan.edges.extend((source, name) for source in sources)
        sources = [name]
    return sources


def _written(nir: ModuleType, plan: _Plan, shape: tuple[int, ...], dt: float, soft_reset: SoftReset) -> Any:
    """The plan as a NIRGraph, every node with its shapes."""
    shapes = _shapes(plan, shape)
    names = {name: f"{name}_layer" if name in (INPUT, OUTPUT) else name for name in plan.layers}
    nodes = {INPUT: nir.Input({"input": _integers(shape)})}
    for name, layer in plan.layers.items():
        if isinstance(layer, Graph | Recurrent):
            nodes[names[name]] = _written(nir, _plan(layer), shapes[name], dt, soft_reset)
        else:
            nodes[names[name]] = node_of(nir, layer, name, shapes[name], dt, soft_reset)
    nodes[OUTPUT] = nir.Output({"output": _integers(shapes[OUTPUT])})
    ends = {INPUT: INPUT, OUTPUT: OUTPUT}
    edges = [(ends.get(a) or names[a], ends.get(b) or names[b]) for a, b in plan.edges]
    try:
        return nir.NIRGraph(nodes, edges)
    except ValueError as error:
        raise ConfigError(f"to_nir: nir refuses the graph: {str(error).partition(chr(10))[0]}") from error


def _shapes(plan: _Plan, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shape of what each layer is given per sample, found by running each on zeros once."""
    found: dict[str, tuple[int, ...]] = {}
    ahead = [(b, shape) for a, b in plan.edges if a == INPUT]
    while ahead:
        name, given = ahead.pop()
        if name in found:
            continue
        found[name] = given
        if name != OUTPUT:
            after = _answer(name, plan.layers[name], given)
            ahead += [(b, after) for a, b in plan.edges if a == name]
    missing = {*plan.layers, OUTPUT} - found.keys()
    if missing:
        raise ConfigError(f"to_nir: nothing leads from the input to {sorted(missing)[0]!r}")
    return found


def _answer(name: str, layer: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    dtype = next((value.dtype for value in layer.parameters() if value.is_floating_point()), None)
    training = layer.training
    layer.eval()
    try:
        with torch.no_grad():
            if isinstance(layer, Sequential):
                return tuple(layer.unroll(torch.zeros(1, 1, *shape, dtype=dtype))[0].shape[2:])
            if isinstance(layer, Stateful):
                return tuple(layer(torch.zeros(1, 1, *shape, dtype=dtype))[0].shape[2:])
            answer: Tensor = layer(torch.zeros(1, *shape, dtype=dtype))
            return tuple(answer.shape[1:])
    except (RuntimeError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise ShapeError(
            f"to_nir: layer {name!r} ({type(layer).__name__}) cannot take samples of shape {list(shape)}: {first}"
        ) from error
    finally:
        layer.train(training)


def _integers(shape: tuple[int, ...]) -> Any:
    return torch.tensor(shape, dtype=torch.int64).numpy()


def _check_dt(caller: str, dt: float) -> None:
    if not (dt > 0 and math.isfinite(dt)):
        raise ConfigError(f"{caller}: dt={dt}, expected a finite number of seconds > 0")


def _nir() -> ModuleType:
    try:
        return importlib.import_module("nir")
    except ImportError:
        raise MissingExtraError("interchange needs nir: pip install 'neuropil[nir]'") from None
