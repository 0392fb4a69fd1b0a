"""How plugins take part, and what each promises of the network beside whatever else acts on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from neuropil.continual import (
    AGEM,
    EWC,
    GEM,
    GPM,
    HLOP,
    MAS,
    OWM,
    SI,
    BinaryVariationalLinear,
    FastSlow,
    FeatureDistillation,
    ForgettingTracker,
    GrowingHead,
    HyperNetworkRegularizer,
    LwF,
    MaskedSoftmax,
    MeanFieldPrior,
    OnlineEWC,
    ParameterL2,
    RecurrentHyperNetwork,
    Rehearsal,
    Replay,
)
from neuropil.data.task import Batch
from neuropil.training import OnlineAccuracy, WatchActivity
from tests.together.world import EPOCHS, Act, Life, World, answer, named, plain, seeded, stream, together

ROUNDING, HEBBIAN = (
    1e-4,
    2e-2,
)  # shares of a movement: rounding; Hebbian neurons that are orthonormal to about a percent


def protects(world: World, plugin: Any, tolerance: float) -> Act:
    """Weights move across a layer's protected directions only, and what would bypass them holds still."""
    yield
    bases = {name: basis.clone() for name, basis in plugin.bases.items()}
    yield
    weights = {f"{name}.weight" for name in plugin.layers}
    moved = world.moved("one", "two")
    assert sum(len(basis) for basis in bases.values()), "nothing is protected"
    for name, basis in bases.items():
        change = moved[f"{name}.weight"].flatten(1)
        along = float((change @ basis.mT).norm())
        assert along <= tolerance * (float(change.norm()) + tolerance), (
            f"{name} moved along what it protects: {along:.1e}"
        )
    known = {name for name, _ in world.model.named_parameters()}
    for name in known - weights:
        assert name not in moved or not moved[name].any(), f"{name} moved, which acts on all tasks"


@together("plugin", HLOP)
def hlop(world: World) -> Act:
    circuits = {"iterations": 20, "momentum": 0.5}  # a few batches are all that they see
    plugin = world.plugin(HLOP(world.model, tasks=2, fill=0.5, generator=seeded(), **circuits))
    yield from protects(world, plugin, HEBBIAN)


@together("plugin", GPM)
def gpm(world: World) -> Act:
    plugin = world.plugin(GPM(world.model, energy=0.9, generator=seeded()))
    yield from protects(world, plugin, ROUNDING)


@together("plugin", OWM)
def owm(world: World) -> Act:
    """What its projectors leave of a direction is what a step may use of it."""
    plugin = world.plugin(OWM(world.model, damping=1e-2, average=4, generator=seeded()))
    yield
    projectors = {name: value.clone() for name, value in plugin.projectors.items()}
    yield
    moved = world.moved("one", "two")
    assert min(float(torch.linalg.eigvalsh(p)[0]) for p in projectors.values()) < 0.1, "nothing is protected"
    for name, projector in projectors.items():
        change, (values, vectors) = moved[f"{name}.weight"].flatten(1), torch.linalg.eigh(projector)
        # in its own directions the movement is a gradient times the projector's value there
        along = (change @ vectors).norm(dim=0)
        assert (along[values < 1e-3] <= 0.02 * along.norm() + 1e-7).all(), f"{name} moved where it is held"


def held_by_springs(world: World, plugin: Any) -> Act:
    """In the second task important weights move less than they would without the springs."""
    yield
    springs = {name: value.clone() for name, value in plugin.state_dict()["stiffness"].items()}
    assert any(bool(value.any()) for value in springs.values()), "no spring has any stiffness"
    yield

    def stretched(moved: dict[str, Tensor]) -> float:
        return sum(float((k * moved[name][: len(k)].square() if k.dim() else k * moved[name].square()).sum())
                   for name, k in springs.items())  # fmt: skip

    world.shrinks("springs stretched by", lambda life: stretched(life.moved("one", "two")))


def spring(make: Callable[[nn.Module], Any]) -> Callable[[World], Act]:
    def act(world: World) -> Act:
        yield from held_by_springs(world, world.plugin(make(world.model)))

    return act


def called(name: str, act: Any) -> Any:
    act.__name__ = name
    return act


SPRINGS: dict[str, tuple[Any, Callable[[nn.Module], Any]]] = {
    "ewc": (EWC, lambda net: EWC(net, strength=10.0, samples=16, generator=seeded())),
    "ewc_on_gradients": (
        EWC,
        lambda net: EWC(net, strength=10.0, samples=16, via="gradients", generator=seeded()),
    ),
    "online_ewc": (OnlineEWC, lambda net: OnlineEWC(net, strength=10.0, samples=16, generator=seeded())),
    "si": (SI, lambda net: SI(net, strength=10.0)),
    "mas": (MAS, lambda net: MAS(net, strength=0.1, samples=16, generator=seeded())),
    "parameter_l2": (ParameterL2, lambda net: ParameterL2(net, strength=1.0)),
    "fast_slow": (FastSlow, lambda net: FastSlow(net, strength=10.0, samples=16, generator=seeded())),
}
for _name, (_kind, _make) in SPRINGS.items():
    together("plugin", _kind)(called(_name, spring(_make)))


@together("plugin", LwF)
def lwf(world: World) -> Act:
    """The new network's answers to the new inputs are nearer to the old network's than without it."""
    world.plugin(LwF(world.model, strength=2.0))
    yield
    yield
    x = stream()[1].train.tensors[0]

    def drift(life: Life) -> float:
        old, new = (answer(life.models[moment], x)[:, :2].log_softmax(-1) for moment in ("one", "two"))
        return float((old.exp() * (old - new)).sum(-1).mean())

    world.shrinks("answers drifted by", drift)


@together("plugin", FeatureDistillation)
def feature_distillation(world: World) -> Act:
    plugin = world.plugin(FeatureDistillation(world.model, strength=0.5))
    yield
    yield
    x = stream()[1].train.tensors[0]

    def features(model: nn.Module) -> Tensor:
        seen: list[Tensor] = []
        site = dict(model.named_modules())[plugin.head]
        handle = site.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        answer(model, x)
        handle.remove()
        return seen[-1]

    def drift(life: Life) -> float:
        return float((features(life.models["one"]) - features(life.models["two"])).square().mean())

    world.shrinks("features drifted by", drift)


def harmless(world: World, plugin: Any, budget: int) -> Act:
    """No step raises the loss on remembered samples, to first order, and memory keeps its budget."""
    steps: list[float] = []

    def look(gradients: dict[str, Tensor]) -> None:
        for reference in plugin.references:
            both = [name for name in gradients if name in reference]
            along = sum(float((gradients[name] * reference[name]).sum()) for name in both)
            size = sum(float(gradients[name].square().sum()) for name in both) ** 0.5
            size *= sum(float(reference[name].square().sum()) for name in both) ** 0.5
            steps.append(along / max(size, 1e-12))

    world.on_gradients.append(look)
    yield
    assert 0 < len(plugin.buffer) <= budget
    yield
    assert steps, "no step was compared with what is remembered"
    assert min(steps) > -1e-4, f"a step goes against what is remembered: cosine {min(steps):.3f}"
    yield
    assert len(plugin.buffer) <= 2 * budget


@together("plugin", AGEM)
def agem(world: World) -> Act:
    yield from harmless(world, world.plugin(AGEM(world.model, per_task=12, generator=seeded())), 12)


@together("plugin", GEM)
def gem(world: World) -> Act:
    yield from harmless(
        world, world.plugin(GEM(world.model, per_task=12, margin=0.0, generator=seeded())), 12
    )


@together("plugin", Replay)
def replay(world: World) -> Act:
    """Every batch of the second task is learned with samples of the first, within the budget."""
    plugin = world.plugin(Replay(per_class=3, generator=seeded()))
    old: list[float] = []
    world.on_batch.append(lambda came, now: old.append(float((now.targets < 2).float().mean())))
    yield
    assert len(plugin.buffer) == 2 * 3
    old.clear()
    yield
    assert old and min(old) > 0.2, f"old samples make up {min(old):.0%} of a batch"
    yield
    assert len(plugin.buffer) == 4 * 3


@together("plugin", Rehearsal)
def rehearsal(world: World) -> Act:
    """After the second task the remembered samples are learned once more; the memory keeps its budget."""
    plugin = world.plugin(Rehearsal(per_class=3, epochs=2, lr=0.1, generator=seeded()))
    yield
    assert len(plugin.buffer) == 2 * 3
    yield
    yield
    assert len(plugin.buffer) == 4 * 3
    every = plugin.buffer.select(torch.arange(12))

    def loss(moment: str) -> float:
        logits = answer(world.life.models[moment], every.inputs)
        return float(nn.functional.cross_entropy(logits, every.targets))

    assert loss("ended") < loss("two"), "rehearsing raised the loss on what was rehearsed"


@together("plugin", MaskedSoftmax)
def masked_softmax(world: World) -> Act:
    """What is learned of a new sample is learned among the present task's classes."""
    plugin = world.plugin(MaskedSoftmax())
    answers: list[set[int]] = []

    def look(came: Batch, now: Batch) -> None:
        fresh = [i for i, label in enumerate(now.targets.tolist()) if label in (plugin.classes or ())]
        if isinstance(now.classes, Tensor):
            answers.extend(set(now.classes[i].nonzero().flatten().tolist()) for i in fresh)
        else:
            answers.append(set(range(4)) if now.classes is None else set(now.classes))

    world.on_batch.append(look)
    yield
    assert all(allowed <= {0, 1} for allowed in answers)
    answers.clear()
    yield
    assert answers and all(allowed <= {2, 3} for allowed in answers), (
        "a new sample is learned among old classes"
    )


def only_looks(world: World) -> Act:
    """Weights at the end are those without it, to the last bit."""
    yield
    yield
    yield
    mine, without = world.life.weights("ended"), world.without.weights("ended")
    assert mine.keys() == without.keys()
    for name, value in mine.items():
        assert torch.equal(value, without[name]), f"{name} is another one than without it"


@together("plugin", ForgettingTracker)
def forgetting_tracker(world: World) -> Act:
    plugin = world.plugin(ForgettingTracker(world.model, stream()[0].train))
    yield from only_looks(world)
    assert plugin.looks == 2 * EPOCHS + 2 and plugin.learned.any()


@together("plugin", OnlineAccuracy)
def online_accuracy(world: World) -> Act:
    plugin = world.plugin(OnlineAccuracy())
    yield from only_looks(world)
    assert len(plugin.accuracies) == 2 * EPOCHS * 3 and 0 < plugin.mean <= 1


@together("plugin", WatchActivity)
def watch_activity(world: World) -> Act:
    world.plugin(WatchActivity())
    yield from only_looks(world)


def _narrow(world: World) -> None:
    world.outputs = 2


@together("plugin", GrowingHead, plan=_narrow)
def growing_head(world: World) -> Act:
    """The head grows from two answers to four, and the old ones keep their bits while it does."""
    world.own_answers()
    plugin = GrowingHead(world.model, layer=named(world.model, "last"), generator=seeded())
    world.plugins.insert(0, plugin)  # before plugins that look at outputs, as it asks for
    grown: list[bool] = []
    grow = plugin.grow_to

    def watched(outputs: int) -> None:
        before = plugin.head.weight.detach().clone()
        grow(outputs)
        if len(plugin.head.weight) > len(before):
            grown.append(torch.equal(plugin.head.weight.detach()[: len(before)], before))

    plugin.grow_to = watched
    yield
    assert plugin.outputs == 2
    yield
    assert plugin.outputs == 4 and grown == [True]


def _written(world: World) -> None:
    world.lr = 0.005
    for place in ("first", "second", "last"):
        world.take(place, nn.Linear)  # all weights are written
    plain(world)  # what cells keep as buffers is written by no task
    world.take("whole", lambda net: RecurrentHyperNetwork(net, tasks=2, embedding=4, hidden=8, chunk=60))


@together("plugin", HyperNetworkRegularizer, RecurrentHyperNetwork, plan=_written)
def hypernetwork(world: World) -> Act:
    """What is written for the first task changes less than without the penalty."""
    world.plugin(HyperNetworkRegularizer(world.model, strength=0.1, generator=seeded()))
    yield
    with torch.no_grad():
        before = world.model.flat([0]).clone()
    yield
    with torch.no_grad():
        drift = float((world.model.flat([0]) - before).square().sum())
    assert drift < 0.45, f"weights written for the first task drifted by {drift:.2f}, 0.9 without the penalty"
    embedding = world.moved("one", "two")["task_embeddings.0"]
    assert not embedding.any(), "the first task's embedding moved"


def _binary(world: World) -> None:
    world.take("second", lambda i, o: BinaryVariationalLinear(i, o, answer="mean", generator=seeded()))


@together("plugin", MeanFieldPrior, BinaryVariationalLinear, plan=_binary)
def mean_field(world: World) -> Act:
    """What is known of the weights moves less than without the prior, which lets it go to 4e-3 nats."""
    plugin = world.plugin(MeanFieldPrior(world.model, strength=100.0))
    yield
    yield
    with torch.no_grad():
        others = {"optimizer", "learner"} & world.places.keys()
        bound = 0.1 if others else 2e-3  # they may make larger steps
        assert float(plugin.divergence()) < bound
