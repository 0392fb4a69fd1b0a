"""How learners and test-time adapters take part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from neuropil.continual import (
    NHL,
    TENT,
    BatchNormStatistics,
    HomeostaticLearningRate,
    ProtoCL,
    PrototypicalBayesClassifier,
)
from neuropil.nn import LeakyIntegrator, Recurrent, TracedLinear
from neuropil.nn.lif import LIF
from neuropil.spiking import DECOLLE, EProp, EPropRecurrent, ThreeFactor, TruncatedBPTT
from neuropil.training import OTTT
from tests.together.world import CLASSES, HIDDEN, Act, World, part, seeded, stream, together


def teaches(make: Callable[[World, Any], Any], *plans: Callable[[World], None]) -> Callable[[World], None]:
    """Plan: take the place of the learner, and what it asks of the network."""

    def plan(world: World) -> None:
        world.take("learner", make)
        for each in plans:
            each(world)

    return plan


def _online(world: World) -> None:
    world.take("readout", lambda: None)
    world.take("last", lambda i, o: TracedLinear(i, o, decay=0.5))
    world.cell_settings["temporal_gradient"] = False


@together("learner", OTTT, TracedLinear,
          plan=teaches(lambda w, p: OTTT(w.model, w.optimizer, plugins=p), _online))  # fmt: skip
def ottt(world: World) -> Act:
    """No error travels back through time: the first step's input has no part in the last step's loss."""
    yield
    yield
    yield
    model = world.life.models["ended"].eval()
    x = stream()[0].train.tensors[0][:4]
    steps = x.expand(4, *x.shape).clone().requires_grad_()
    still, model.time_steps = model.time_steps, None
    model(steps)[-1].sum().backward()
    model.time_steps = still
    assert not steps.grad[:-1].any() and steps.grad[-1].any(), "an error has travelled back in time"


@together("learner", TruncatedBPTT,
          plan=teaches(lambda w, p: TruncatedBPTT(w.model, w.optimizer, 2, plugins=p)))  # fmt: skip
def truncated_bptt(world: World) -> Act:
    """In windows it computes what it does in one go."""
    yield
    yield
    yield
    x = stream()[0].train.tensors[0]
    with torch.no_grad():
        world.model.eval()
        torch.testing.assert_close(world.learner.predict(x), world.model(x))


@together("learner", DECOLLE,
          plan=teaches(lambda w, p: DECOLLE(w.model, w.optimizer, generator=seeded(), plugins=p)))  # fmt: skip
def decolle(world: World) -> Act:
    """Its readouts are no part of the network and stay as they were drawn."""
    yield
    before = {name: value.clone() for name, value in world.learner.readouts.items()}
    yield
    assert before.keys() == world.learner.readouts.keys()
    assert all(
        torch.equal(value, world.learner.readouts[name][: len(value)]) for name, value in before.items()
    )


@together("learner", ThreeFactor,
          plan=teaches(lambda w, p: ThreeFactor(w.model, w.optimizer, generator=seeded(), plugins=p)))  # fmt: skip
def three_factor(world: World) -> Act:
    """The random weights that carry its third factor stay as they were drawn."""
    yield
    before = {name: value.clone() for name, value in world.learner.feedback.items()}
    yield
    now = world.learner.feedback
    assert all(torch.equal(value, now[name][: len(value)]) for name, value in before.items())


@together("learner", HomeostaticLearningRate,
          plan=teaches(lambda w, p: HomeostaticLearningRate(
              w.model, w.optimizer, excitatory=[0, 2], step=0.005, plugins=p)))  # fmt: skip
def homeostatic(world: World) -> Act:
    """The rate moves in whole steps and stays above nothing."""
    yield
    yield
    yield
    rate = world.learner.lr
    steps = (rate - world.lr) / 0.005
    assert rate > 0 and (abs(steps - round(steps)) < 1e-6 or rate <= 1e-8)


def _recurrent(world: World) -> None:
    def cell() -> nn.Module:
        back = nn.Linear(HIDDEN, HIDDEN, bias=False)
        return EPropRecurrent(LIF(threshold=0.3), back)

    world.take("cell", cell)
    world.take("readout", lambda: LeakyIntegrator(0.5))
    world.lr = 0.1


@together("learner", EProp, EPropRecurrent,
          plan=teaches(lambda w, p: EProp(w.model, w.optimizer, plugins=p), _recurrent))  # fmt: skip
def eprop(world: World) -> Act:
    """It runs as any recurrent network of these cells and weights does."""
    yield
    yield
    yield
    layer = part(world.life.models["ended"], "cell")
    currents = torch.rand(6, 2, HIDDEN)
    with torch.no_grad():
        torch.testing.assert_close(layer(currents)[0], Recurrent(layer.cell, layer.weights)(currents)[0])


def _prototypes(world: World) -> None:
    def wrap(net: nn.Module) -> nn.Module:
        return PrototypicalBayesClassifier(net, features=CLASSES, classes=CLASSES)

    world.take("whole", wrap)
    world.lr = 0.01  # its losses are sharp: springs as stiff as their gradients want short steps


@together("learner", ProtoCL, PrototypicalBayesClassifier,
          plan=teaches(lambda w, p: ProtoCL(w.model, w.optimizer, plugins=p), _prototypes))  # fmt: skip
def proto_bayes(world: World) -> Act:
    """Each class is known by the mean of its samples, as the network sees them now."""
    yield
    yield
    yield
    model = world.model.eval()
    x, y = stream()[1].train.tensors
    with torch.no_grad():
        mean = model.features_of(x[y == 2]).mean(0)
    found = model.means[2]
    assert float((found - mean).norm()) < 0.5 * float(mean.norm()) + 0.1


def _normalised(world: World) -> None:
    world.take("norm", nn.BatchNorm1d)


def darker() -> Tensor:
    x = torch.cat([now.test.tensors[0] for now in stream()])
    return 0.5 * x + 0.3


def adapts(world: World, make: Callable[[nn.Module], Any], allowed: tuple[str, ...]) -> Act:
    """Only what it says it adapts changes, and `reset` puts every bit back."""
    yield
    yield
    yield
    adapter = make(world.model)
    before = world.life.weights("ended")
    for _ in range(3):
        adapter.update(darker())
    after = world.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    own = {name.removeprefix("encoder.") for name in changed}
    assert changed and all(name.startswith(allowed) for name in own), f"changed: {sorted(changed)}"
    yield
    adapter.reset()
    for name, value in adapter.model.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} was not put back"
    if hasattr(adapter, "detach"):
        adapter.detach()


@together("adapter", BatchNormStatistics, plan=_normalised)
def bn_statistics(world: World) -> Act:
    yield from adapts(world, BatchNormStatistics, ("norm.running_",))


@together("adapter", TENT, plan=_normalised)
def tent(world: World) -> Act:
    yield from adapts(world, TENT, ("norm.",))


@together("adapter", NHL, plan=_normalised)
def nhl(world: World) -> Act:
    yield from adapts(world, NHL, ("norm.", "first.weight"))
