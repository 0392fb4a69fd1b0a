"""Layers wired as a graph: branches that meet again, skips, and loops that come back a step later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, StateError, nearest
from neuropil.nn.finite import check_finite
from neuropil.nn.integrator import check_input
from neuropil.nn.sequential import Sequential
from neuropil.nn.stateful import Stateful

if TYPE_CHECKING:
    from jaxtyping import Float

Edge = tuple[str, str]
INPUT, OUTPUT = "input", "output"


class GraphState(NamedTuple):
    """What a graph carries from one step to the next."""

    cells: dict[str, Any]  # state of each layer that has one, by name
    feedback: dict[str, Tensor]  # [batch, ...], last output of each layer that a loop comes back from


class _Stage(NamedTuple):
    """Layers that are run together: one alone over the whole sequence, or a loop step by step."""

    order: tuple[str, ...]
    delayed: frozenset[Edge]
    loops: bool


class Graph(Stateful):
    """Named layers and the edges between them, from `"input"` to `"output"`; what meets at a layer is added.

    A layer is a `Stateful` module, a `Sequential` without `time_steps`, or any other module, which sees time
    folded into the batch. Layers outside loops are given whole sequences. A loop is run step by step: what comes
    back arrives one step later, counted where it leaves a neuron, and is zero at first. (A recurrent `nn.Linear`
    with a bias therefore gives its bias at the first step.)

    Args:
        layers: Modules by name; `"input"` and `"output"` are taken.
        edges: Pairs `(from, to)` of names.

    Raises:
        ConfigError: An edge names no layer, or nothing leads from the input to the output.
        ShapeError, StateError, NonFiniteError: As the layers do.

    >>> import torch
    >>> from neuropil.nn import LIF
    >>> layers = {"in": nn.Linear(3, 4), "cells": LIF(), "back": nn.Linear(4, 4)}
    >>> edges = [("input", "in"), ("in", "cells"), ("cells", "back"), ("back", "cells"), ("cells", "output")]
    >>> spikes, state = Graph(layers, edges)(torch.randn(5, 2, 3))  # [time, batch, features]
    >>> spikes.shape, state.feedback["cells"].shape
    (torch.Size([5, 2, 4]), torch.Size([2, 4]))
    """

    def __init__(self, layers: Mapping[str, nn.Module], edges: Iterable[Edge]) -> None:
        super().__init__()
        self.edges: tuple[Edge, ...] = tuple(dict.fromkeys((str(a), str(b)) for a, b in edges))
        self._keys: dict[str, str] = {}
        self.layers = nn.ModuleDict()
        for name, layer in layers.items():
            self._add(name, layer)
        self._check()
        self._stages = tuple(_stages(list(layers), self.edges, self._is_stateful))

    def __getitem__(self, name: str) -> nn.Module:
        """The layer of that name."""
        if name not in self._keys:
            raise ConfigError(f"Graph: no layer {name!r}{nearest(name, self._keys)}")
        return self.layers[self._keys[name]]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers, in the order given."""
        return tuple(self._keys)

    def initial_state(self, x: Tensor) -> GraphState:
        """Every layer at rest and no feedback yet, for `x` of shape `[time, batch, ...features]`."""
        return GraphState({}, {})

    def check_state(self, state: Any, x: Tensor) -> None:
        """Raise StateError in one line when `state` is another graph's or of another batch."""
        if not isinstance(state, GraphState):
            raise StateError(f"Graph: state is a {type(state).__name__}, expected a call's state or None")
        for name, value in state.feedback.items():
            if value.shape[0] != x.shape[1]:
                raise StateError(
                    f"Graph: feedback of {name!r} has shape {list(value.shape)}, the input needs "
                    f"{x.shape[1]} samples; pass state=None to start at rest"
                )

    def forward(
        self, x: Float[Tensor, "time batch ..."], state: GraphState | None = None
    ) -> tuple[Float[Tensor, "time batch ..."], GraphState]:
        """What reaches the output at every step, and the state after the last."""
        check_input(self, x)
        check_finite(x, "Graph input")
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        signals, cells, feedback = {INPUT: x}, dict(state.cells), dict(state.feedback)
        for stage in self._stages:
            if stage.loops:
                self._loop(stage, signals, cells, feedback)
                continue
            (name,) = stage.order
            signals[name] = self._run(name, self._drive(name, signals), cells)
        return self._drive(OUTPUT, signals), GraphState(cells, feedback)

    def _loop(
        self, stage: _Stage, signals: dict[str, Tensor], cells: dict[str, Any], feedback: dict[str, Tensor]
    ) -> None:
        """Run a loop over time; `signals`, `cells` and `feedback` take its outputs."""
        inside = set(stage.order)
        outside = [a for a, b in self.edges if b in inside and a not in inside]
        time = len(signals[outside[0]])
        sources = {a for a, _ in stage.delayed}
        if not sources <= feedback.keys():
            first = {name: signals[name][:1] for name in outside}
            feedback.update(self._silence(stage, first, dict(cells)))
        outputs: dict[str, list[Tensor]] = {name: [] for name in stage.order}
        for step in range(time):
            now = {name: signals[name][step : step + 1] for name in outside}
            for name in stage.order:
                drive = self._drive(name, now, feedback, stage.delayed)
                now[name] = self._run(name, drive, cells)
                outputs[name].append(now[name])
            feedback.update({name: now[name][0] for name in sources})
        signals.update({name: torch.cat(pieces) for name, pieces in outputs.items()})

    def _silence(self, stage: _Stage, now: dict[str, Tensor], cells: dict[str, Any]) -> dict[str, Tensor]:
        """Zeros in the shape of what will come back, found by running the loop once without it."""
        sources = {a for a, _ in stage.delayed}
        with torch.no_grad():
            for name in stage.order:
                if any(a in now for a, b in self.edges if b == name and (a, b) not in stage.delayed):
                    now[name] = self._run(name, self._drive(name, now, {}, stage.delayed), cells)
        unknown = sources - now.keys()
        if unknown:
            raise ConfigError(
                f"Graph: nothing outside its loop drives {sorted(unknown)}; add an edge from the input"
            )
        return {name: torch.zeros_like(now[name][0]) for name in sources}

    def _drive(
        self,
        name: str,
        signals: Mapping[str, Tensor],
        feedback: Mapping[str, Tensor] | None = None,
        delayed: frozenset[Edge] = frozenset(),
    ) -> Tensor:
        """Sum of what arrives at a layer."""
        total: Tensor | None = None
        for edge in self.edges:
            if edge[1] != name:
                continue
            late = edge in delayed
            if late and feedback is not None and edge[0] in feedback:
                arriving = feedback[edge[0]].unsqueeze(0)
            elif late or edge[0] not in signals:
                continue
            else:
                arriving = signals[edge[0]]
            total = arriving if total is None else total + arriving
        if total is None:
            raise ConfigError(f"Graph: nothing arrives at {name!r}")
        return total

    def _run(self, name: str, x: Tensor, cells: dict[str, Any]) -> Tensor:
        """Output of a layer for a piece of the sequence; `cells` takes its state."""
        layer = self[name]
        if isinstance(layer, Sequential):
            y, cells[name] = layer.unroll(x, cells.get(name))
            return y
        if isinstance(layer, Stateful):
            stateful: Tensor
            stateful, cells[name] = layer(x, cells.get(name))
            return stateful
        folded: Tensor = layer(x.flatten(0, 1))
        return folded.reshape(*x.shape[:2], *folded.shape[1:])

    def _is_stateful(self, name: str) -> bool:
        return isinstance(self[name], Stateful | Sequential)

    def _add(self, name: str, layer: nn.Module) -> None:
        if name in (INPUT, OUTPUT):
            raise ConfigError(f"Graph: {name!r} is the graph's own and cannot name a layer")
        key = name.replace(".", "_") or "_"
        while key in self.layers or hasattr(self.layers, key):  # module names share a namespace with methods
            key += "_"
        self.layers[key] = layer
        self._keys[name] = key

    def _check(self) -> None:
        known = {INPUT, OUTPUT, *self._keys}
        for edge in self.edges:
            for name in edge:
                if name not in known:
                    raise ConfigError(f"Graph: edge {edge} names {name!r}{nearest(name, known)}")
        if any(b == INPUT for _, b in self.edges) or any(a == OUTPUT for a, _ in self.edges):
            raise ConfigError("Graph: an edge leads into 'input' or out of 'output'")
        reached = _reached(INPUT, self.edges)
        if OUTPUT not in reached:
            raise ConfigError("Graph: no path leads from 'input' to 'output'")
        for name in self._keys:
            if name not in reached:
                raise ConfigError(f"Graph: no path leads from 'input' to {name!r}")


def _reached(start: str, edges: Sequence[Edge]) -> set[str]:
    """What can be reached from `start` by one edge or more."""
    found: set[str] = set()
    ahead = [b for a, b in edges if a == start]
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += [b for a, b in edges if a == name]
    return found


def _stages(names: Sequence[str], edges: Sequence[Edge], is_stateful: Any) -> Iterable[_Stage]:
    """Loops and single layers, each after all that it hears from."""
    reached = {name: _reached(name, edges) for name in names}
    group = {
        name: min(
            (other for other in names if other in reached[name] and name in reached[other]), key=names.index
        )
        if name in reached[name]
        else name
        for name in names
    }
    order: TopologicalSorter[str] = TopologicalSorter({group[name]: () for name in names})
    for a, b in edges:
        if a in group and b in group and group[a] != group[b]:
            order.add(group[b], group[a])
    for head in order.static_order():
        members = [name for name in names if group[name] == head]
        if head not in reached[head]:
            yield _Stage((head,), frozenset(), False)
            continue
        delayed = _delayed(members, edges, is_stateful)
        inner: TopologicalSorter[str] = TopologicalSorter({name: () for name in members})
        for a, b in edges:
            if a in members and b in members and (a, b) not in delayed:
                inner.add(b, a)
        yield _Stage(tuple(inner.static_order()), delayed, True)


def _delayed(members: Sequence[str], edges: Sequence[Edge], is_stateful: Any) -> frozenset[Edge]:
    """The edges of a loop that take a step: those that close it, moved back to where they leave a neuron."""
    inside = [(a, b) for a, b in edges if a in members and b in members]
    entries = [b for a, b in edges if b in members and a not in members]
    closing: list[Edge] = []
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        done.add(name)
        for edge in inside:
            if edge[0] != name:
                continue
            if edge[1] in (*above, name):
                closing.append(edge)
            elif edge[1] not in done:
                visit(edge[1], (*above, name))

    for entry in entries:
        if entry not in done:
            visit(entry, ())
    return frozenset(_moved_back(edge, inside, edges, is_stateful) for edge in closing)


def _moved_back(edge: Edge, inside: Sequence[Edge], edges: Sequence[Edge], is_stateful: Any) -> Edge:
    while not is_stateful(edge[0]):
        before = [each for each in edges if each[1] == edge[0]]
        after = [each for each in edges if each[0] == edge[0]]
        if len(before) != 1 or len(after) != 1 or before[0] not in inside:
            break
        edge = before[0]
    return edge
