"""One small network and its life: what every mechanism is put on, alone and in pairs.

A mechanism says in one generator how it is put on the network and what it promises:

    @together("plugin", EWC)
    def ewc(world):
        plugin = world.plugin(EWC(world.model, strength=30.0, generator=seeded()))
        yield                                   # the first task is learned
        springs = plugin.state_dict()["stiffness"]
        yield                                   # the second one is learned, before the plugins' `after_task`
        assert ...                              # what it promised

The moments are, in this order: put on; task one learned and consolidated; task two learned; ended; edited or adapted.
A generator may end early. What has to be known before the network is built, as which cells it has, is done by `plan`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.data import Stream, Task
from neuropil.data.task import Batch
from neuropil.errors import ConfigError, IncompatibleError
from neuropil.nn import LIF, RateReadout, Sequential, Stateful
from neuropil.training import Backprop, Learner, Plugin, Trainer
from tests.training.worlds import CLASSES, FEATURES, task

HIDDEN, STEPS, BATCH, EPOCHS = 16, 4, 16, 2
KINDS = ("cell", "layer", "parametrization", "plugin", "optimizer", "learner", "adapter", "edit")
AFTERWARDS = ("adapter", "edit")  # kinds that act on a network that has learned
MOMENTS = ("one", "two", "ended", "edited")


Act = Generator[None, None, None]


class Taken(Exception):
    """Two mechanisms want the one place that a network has for them."""


class Entry(NamedTuple):
    """How a mechanism takes part."""

    name: str
    kind: str
    mechanisms: tuple[Any, ...]  # what is exported of it
    act: Callable[[World], Act]
    plan: Callable[[World], None] | None


ENTRIES: dict[str, Entry] = {}


def together(kind: str, *mechanisms: Any, plan: Callable[[World], None] | None = None) -> Any:
    """Register a generator as the way in which mechanisms take part."""

    def register(act: Callable[[World], Act]) -> Any:
        assert kind in KINDS and act.__name__ not in ENTRIES, act.__name__
        ENTRIES[act.__name__] = Entry(act.__name__, kind, mechanisms, act, plan)
        return act

    return register


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def stream() -> Stream:
    """Two tasks of two classes each, which do not tell their classes; one head answers among all four."""
    tasks = (task(0, 48, (0, 1)), task(1, 48, (2, 3)))
    return Stream(tuple(dataclasses.replace(now, classes=None) for now in tasks), n_classes=CLASSES)


@dataclass
class Life:
    """What is kept of a life: the network at each moment, and the loss on task one before and after it."""

    models: dict[str, nn.Module] = field(default_factory=dict)
    before: float = 0.0
    after: float = 0.0

    def weights(self, moment: str) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.models[moment].state_dict().items()}

    def moved(self, start: str, end: str) -> dict[str, Tensor]:
        """What changed of each tensor between two moments; of one that has grown, in the rows that were there."""
        before, after = self.weights(start), self.weights(end)
        return {
            name: after[name][: len(old)] - old if old.dim() else after[name] - old
            for name, old in before.items()
            if name in after and old.is_floating_point()
        }


class World:
    """The network under construction, and what acts on it."""

    def __init__(self) -> None:
        self.places: dict[str, Callable[..., Any]] = {}
        self.cell_settings: dict[str, Any] = {}
        self.own_cells: list[str] = []  # places that cells under test have taken, in their order
        self.own_layers: list[str] = []  # and layers
        self.outputs, self.lr = CLASSES, 0.15
        self.time_steps: int | None = STEPS
        self.model: nn.Module
        self.plugins: list[Plugin] = []
        self.optimizer: torch.optim.Optimizer | None = None
        self.learner: Learner | None = None
        self.life = Life()
        self.without = self.bare = (
            Life()
        )  # of the network without the mechanism that asks, and of that without any
        self.on_batch: list[Callable[[Batch, Batch], None]] = []  # as it came, and as it is learned
        self.on_gradients: list[Callable[[dict[str, Tensor]], None]] = []
        self.on_step: list[Callable[[], None]] = []
        self.index = 0  # of the task that is learned

    def take(self, place: str, value: Callable[..., Any], *others: str) -> str:
        """Put something in a place, or in the first free one of several."""
        for free in (place, *others):
            if free not in self.places:
                self.places[free] = value
                return free
        raise Taken(f"one network has one {place}")

    def build(self) -> None:
        torch.manual_seed(0)
        self.model = self.places.get("network", _network)(self)
        if "whole" in self.places:
            self.model = self.places["whole"](self.model)

    def plugin(self, plugin: Any) -> Any:
        self.plugins.append(plugin)
        return plugin

    def own_answers(self) -> None:
        """Asked by what changes the answers' number, which a network inside another has no say in."""
        if "whole" in self.places:
            raise Taken("what the network is wrapped in counts its answers")

    def shrinks(self, what: str, measure: Callable[[Life], float]) -> None:
        """A measure of drift is smaller than without the mechanism, or than half of what it is without either."""
        mine, without = measure(self.life), measure(self.without)
        try:
            bare = measure(self.bare)
        except KeyError:  # the partner has brought other parameters
            bare = 0.0
        text = f"{what} {mine:.2e}, without it by {without:.2e}, of the bare network by {bare:.2e}"
        assert mine < without or mine < 0.5 * bare, text

    def moved(self, start: str, end: str) -> dict[str, Tensor]:
        """What changed between two moments."""
        return self.life.moved(start, end)


def answer(model: nn.Module, x: Tensor) -> Tensor:
    """A network's logits `[batch, outputs]`."""
    training = model.training
    model.eval()
    with torch.no_grad():
        output: Tensor = model(x)
    model.train(training)
    return output if output.dim() == 2 else output.mean(0)


def part(model: nn.Module, place: str) -> nn.Module:
    """What stands in a place of the network, however it was wrapped since."""
    for name, module in model.named_modules():
        if name == place or name.endswith(f".{place}"):
            return module
    raise Taken(f"the network has no layer {place!r} of its own any more")


def named(model: nn.Module, place: str) -> str:
    """The name of what stands in a place."""
    wanted = part(model, place)
    return next(name for name, module in model.named_modules() if module is wanted)


def same_bits(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def _network(world: World) -> nn.Module:
    """Three layers of synapses and two of cells."""
    make = {"first": nn.Linear, "second": nn.Linear, "last": nn.Linear} | world.places
    cell = lambda: LIF(threshold=0.3, **world.cell_settings)  # noqa: E731  (so low that all of it speaks)
    layers: list[tuple[str, nn.Module]] = [("first", make["first"](FEATURES, HIDDEN))]
    if "norm" in make:
        layers.append(("norm", make["norm"](HIDDEN)))
    layers += [
        ("cell", make.get("cell", cell)()),
        ("second", make["second"](HIDDEN, HIDDEN)),
        ("cell_2", make.get("cell_2", cell)()),
        ("last", make["last"](HIDDEN, world.outputs)),
    ]
    readout = make.get("readout", RateReadout)()
    layers += [("readout", readout)] if readout is not None else []
    if world.time_steps is None:
        if any(isinstance(inside, Stateful) for _, layer in layers for inside in layer.modules()):
            raise Taken("a network without time has no place for what lives in it")
        return nn.Sequential(OrderedDict(layers))
    return Sequential(OrderedDict(layers), time_steps=world.time_steps)


def plain(world: World) -> None:
    """A network without time: ReLUs in the place of cells, and no readout."""
    world.take("cell", nn.ReLU)
    world.take("cell_2", nn.ReLU)
    world.take("readout", lambda: None)
    world.time_steps = None


class _Probe(Plugin):
    """Tells the world of a moment; the first one stands before all other plugins, the last one behind them."""

    def __init__(self, world: World, first: _Probe | None = None) -> None:
        self.world, self.first, self.batch = world, first, Batch(torch.empty(0), torch.empty(0))
        self.reach: Callable[[str], None] = lambda moment: None

    def before_task(self, now: Task) -> None:
        self.world.index = now.index

    def before_batch(self, batch: Batch) -> Batch:
        self.batch = batch
        for look in self.world.on_batch if self.first else ():
            look(self.first.batch, batch)
        return batch

    def on_gradients(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        for look in self.world.on_gradients if self.first else ():
            look(gradients)
        return gradients

    def after_step(self) -> None:
        for look in () if self.first else self.world.on_step:
            look()

    def after_task(self, now: Task) -> None:
        if self.first and now.index == 0:
            self.reach("one")
        elif not self.first and now.index == 1:
            self.reach("two")


class Verdict(NamedTuple):
    """How a pair fares; `apart`: both want the same place, so that one network has one or the other."""

    kind: Literal["together", "refused", "apart", "broken"]
    line: str = ""


def verdict(*entries: Entry, without: Sequence[Life] = ()) -> Verdict:
    """Whether entries, listed in this order, live together."""
    try:
        live(*entries, without=without)
    except Taken as taken:
        return Verdict("apart", str(taken))
    except (IncompatibleError, ConfigError) as refusal:
        line = str(refusal)
        return (
            Verdict("refused", line) if len(line.splitlines()) == 1 else Verdict("broken", f"lines: {line}")
        )
    except Exception as error:
        return Verdict("broken", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    return Verdict("together")


def verdict_of_pair(a: Entry, b: Entry, alone: Mapping[str, Life]) -> Verdict:
    """The worse verdict of both orders, of plugins; refused in one order alone, it is the other's."""
    found = [verdict(a, b, without=(alone[b.name], alone[a.name]))]
    if a.kind == b.kind == "plugin" and found[0].kind != "apart":
        found.append(verdict(b, a, without=(alone[a.name], alone[b.name])))
    for kind in ("broken", "together", "refused"):
        for each in found:
            if each.kind == kind:
                return each
    return found[0]


@cache
def lives() -> dict[str, Life]:
    """Every mechanism's life alone."""
    return {name: live(entry, without=[bare()]) for name, entry in ENTRIES.items()}


@cache
def bare() -> Life:
    """The life of the network that carries nothing."""
    return live()


def live(*entries: Entry, without: Sequence[Life] = ()) -> Life:
    """The life of a network that carries `entries`; `without[i]` is that of the network without the i-th of them."""
    world = World()
    if entries:
        world.bare = bare()
    ways = {entry.name: without[i] if without else Life() for i, entry in enumerate(entries)}
    ordered = sorted(entries, key=lambda entry: KINDS.index(entry.kind))
    for entry in ordered:
        if entry.plan:
            entry.plan(world)
    world.build()
    running: list[tuple[Entry, Any]] = []

    def advance(only: Callable[[Entry], bool] = lambda entry: True) -> None:
        for pair in [pair for pair in running if only(pair[0])]:
            world.without = ways[pair[0].name]
            if next(pair[1], StopIteration) is StopIteration:
                running.remove(pair)

    def reach(moment: str) -> None:
        world.life.models[moment] = copy.deepcopy(world.model)
        advance(lambda entry: moment != "ended" or entry.kind not in AFTERWARDS)

    running += [(entry, entry.act(world)) for entry in ordered]
    advance()
    if world.optimizer is None:
        world.optimizer = torch.optim.SGD(world.model.parameters(), lr=world.lr)
    first = _Probe(world)
    last = _Probe(world, first)
    first.reach = last.reach = reach
    plugins = [first, *world.plugins, last]
    if "learner" in world.places:
        world.learner = world.places["learner"](world, plugins)
    else:
        world.learner = Backprop(world.model, world.optimizer, plugins=plugins)
    trainer = Trainer(learner=world.learner, epochs=EPOCHS, batch_size=BATCH, progress=False)
    world.life.models["start"] = copy.deepcopy(world.model)
    world.life.before = _loss(world)
    trainer.fit(stream())
    reach("ended")
    for plugin in world.plugins:
        if hasattr(plugin, "detach"):
            plugin.detach()  # the network is finished
    advance(lambda entry: entry.kind in AFTERWARDS)
    world.life.models["edited"] = copy.deepcopy(world.model)
    advance()
    _check(world)
    return world.life


def _loss(world: World) -> float:
    """Of the answers to the first task."""
    x, y = stream()[0].train.tensors
    return float(functional.cross_entropy(answer(world.model, x)[:, :2], y))


def _check(world: World) -> None:
    """What any life keeps: all is finite, and the network learned something in each of the tasks."""
    for moment, model in world.life.models.items():
        for name, value in model.state_dict().items():
            assert value.isfinite().all(), f"{name} is not finite, {moment}"
    x, y = stream()[0].train.tensors
    after = float(functional.cross_entropy(answer(world.life.models["one"], x)[:, :2], y))
    assert after < world.life.before, f"loss on task one {world.life.before:.3f} -> {after:.3f}"
    assert any(
        float(moved.abs().max()) > 0 for moved in world.moved("one", "two").values() if moved.numel()
    ), "nothing was learned of task two"
