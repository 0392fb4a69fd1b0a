"""How edits take part: each makes another network of one that has learned both tasks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from neuropil.editing import (
    TaskVector,
    amnesiac,
    bad_teacher,
    choose_dampening,
    dampening,
    finetuned,
    gradient_ascent,
    linearize,
    parameter_importance,
    retrained,
    scrub,
    selective_synaptic_dampening,
)
from neuropil.nn import DelayLinear, grow_outputs
from neuropil.spiking import SigmaSchedule, convert_to_spikes, round_delays
from tests.together.world import (
    BATCH,
    CLASSES,
    HIDDEN,
    Act,
    World,
    answer,
    named,
    part,
    plain,
    same_bits,
    seeded,
    stream,
    together,
)


@together("edit", TaskVector)
def task_vector(world: World) -> Act:
    """What the second task has added is taken away again."""
    yield
    yield
    yield
    given, first = world.model, world.life.models["one"]
    before = copy.deepcopy(given)
    world.model = (-TaskVector.between(first, given)).apply_to(given)
    assert same_bits(given, before)
    back = dict(world.model.named_parameters())
    for name, parameter in first.named_parameters():
        torch.testing.assert_close(back[name].detach(), parameter.detach())


@together("edit", grow_outputs)
def wider(world: World) -> Act:
    """Two more answers; the old ones are the same bits, and the network given stays as it was."""
    yield
    yield
    yield
    given, x = world.model, stream()[1].test.tensors[0]
    before = copy.deepcopy(given)
    world.own_answers()
    world.model = grow_outputs(given, 2, layer=named(given, "last"), generator=seeded())
    assert same_bits(given, before)
    found = answer(world.model, x)
    assert found.shape[1] == CLASSES + 2
    torch.testing.assert_close(found[:, :CLASSES], answer(given, x))


def _gaussian_delays(world: World) -> None:
    def make(inputs: int, outputs: int) -> DelayLinear:
        settings = {"learn": True, "bounds": "clamp", "interpolation": "gaussian"}
        return DelayLinear(inputs, outputs, 2, generator=seeded(), **settings)

    world.take("second", make)


@together("edit", round_delays, SigmaSchedule, plan=_gaussian_delays)
def rounded_delays(world: World) -> Act:
    """Delays learn within their range while their Gaussians narrow, and are whole steps at the end."""
    world.plugin(SigmaSchedule(world.model, steps=8))
    yield
    yield
    yield
    layer = part(world.model, "second")
    assert abs(layer.width - 0.5) < 1e-6 and bool(((layer.delays >= 0) & (layer.delays <= 2)).all())
    given = world.model
    world.model = round_delays(given)
    delays = part(world.model, "second").delays
    assert delays.shape == (HIDDEN, HIDDEN) and bool((delays == delays.round()).all())


@together("edit", linearize)
def tangent(world: World) -> Act:
    """The linear approximation answers as the network does where it was taken."""
    yield
    yield
    yield
    given, x = world.model, stream()[1].test.tensors[0]
    before = copy.deepcopy(given)
    world.model = linearize(given)
    assert same_bits(given, before)
    torch.testing.assert_close(answer(world.model, x), answer(given, x))


@together("edit", convert_to_spikes, plan=plain)
def spikes(world: World) -> Act:
    """A network of rates speaks in spikes and answers nearly the same; the one given stays as it was."""
    yield
    yield
    yield
    given, x = world.model, stream()[1].test.tensors[0]
    before = copy.deepcopy(given)
    world.model = convert_to_spikes(given, stream()[1].train.tensors[0], time_steps=64)
    assert same_bits(given, before)
    wanted, found = answer(given, x), answer(world.model, x)
    assert float((wanted - found).norm()) < 0.3 * float(wanted.norm())


GOES = 2  # a class of the second task
GUESS = (
    1 / CLASSES + 0.02
)  # where a partner has kept the network from learning the class, there is little to forget
Edit = Callable[[nn.Module, TensorDataset, TensorDataset], nn.Module]


def loss(output: Tensor, targets: Tensor) -> Tensor:
    """Of one answer a sample, or of the mean over the steps of a network that answers at each."""
    return functional.cross_entropy(output if output.dim() == 2 else output.mean(0), targets)


def divided() -> tuple[TensorDataset, TensorDataset]:
    """Samples of the class that is to go, and of the others."""
    parts = [now.train.tensors for now in stream()]
    x, y = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return TensorDataset(x[y == GOES], y[y == GOES]), TensorDataset(x[y != GOES], y[y != GOES])


def sureness(model: nn.Module, samples: TensorDataset) -> float:
    """Mean probability of the right answer."""
    x, y = samples.tensors
    return float(answer(model, x).softmax(-1).gather(1, y[:, None]).mean())


def forgets(world: World, edit: Edit) -> Act:
    """A class is less sure than before, beside the others, or no surer than a guess; the network given stays."""
    yield
    yield
    yield
    given, (gone, kept) = world.model, divided()
    before = copy.deepcopy(given)
    world.model = edit(given, gone, kept)
    assert same_bits(given, before)
    was, now = (sureness(model, gone) / sureness(model, kept) for model in (given, world.model))
    guessed = sureness(world.model, gone) <= GUESS
    assert guessed or now < was, f"the class is as sure as it was: {was:.3f}, now {now:.3f} of the others"


def dampened(model: nn.Module, gone: TensorDataset, kept: TensorDataset) -> nn.Module:
    """Dampening with an alpha of its own for this network, chosen as `choose_dampening` is meant."""
    everything = TensorDataset(*(torch.cat(pair) for pair in zip(gone.tensors, kept.tensors, strict=True)))
    whole, seen = (
        parameter_importance(model, samples, batch_size=BATCH, loss=loss) for samples in (everything, gone)
    )
    found = choose_dampening(
        model, [dampening(whole, seen, alpha=alpha) for alpha in (1.0, 2.0, 5.0, 10.0)],
        lambda edited: sureness(edited, kept) - sureness(edited, gone),
    )  # fmt: skip
    edited = found.apply(model)
    again = selective_synaptic_dampening(
        model, gone, whole, alpha=found.alpha, lam=found.lam, batch_size=BATCH, loss=loss
    )
    assert same_bits(edited, again)
    return edited


def begin_anew(module: nn.Module) -> None:
    """What can be drawn anew is; the rest, as constants of neurons, begins as it is."""
    getattr(module, "reset_parameters", lambda: None)()


def knowing_nothing(model: nn.Module) -> nn.Module:
    teacher = copy.deepcopy(model)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for module in teacher.modules():
            begin_anew(module)
    return teacher


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def training() -> dict[str, Any]:
    return {"batch_size": BATCH, "make_optimizer": sgd, "generator": seeded()}


@together("edit", selective_synaptic_dampening)
def ssd(world: World) -> Act:
    """Synapses that matter to a class more than to the rest are weakened."""
    yield from forgets(world, dampened)


@together("edit", finetuned)
def fine_tuning(world: World) -> Act:
    """Learning the others once more."""
    yield from forgets(
        world,
        lambda model, gone, kept: finetuned(model, kept, epochs=4, loss=loss, **training()),
    )


@together("edit", gradient_ascent)
def ascent(world: World) -> Act:
    """Up on the class, down on the others."""
    yield from forgets(
        world,
        lambda model, gone, kept: gradient_ascent(
            model, gone, kept, weight=0.3, epochs=2, loss=loss, **training()
        ),
    )


@together("edit", bad_teacher)
def bad_teaching(world: World) -> Act:
    """On the class it imitates a network that knows nothing."""

    def edit(model: nn.Module, gone: TensorDataset, kept: TensorDataset) -> nn.Module:
        return bad_teacher(model, gone, kept, teacher=knowing_nothing(model), epochs=2, **training())

    yield from forgets(world, edit)


@together("edit", scrub)
def scrubbed(world: World) -> Act:
    """Away from itself on the class, towards itself on the others."""
    yield from forgets(
        world, lambda model, gone, kept: scrub(model, gone, kept, epochs=2, loss=loss, **training())
    )


@together("edit", amnesiac)
def relabelled(world: World) -> Act:
    """The class gets other names."""
    others = [label for label in range(CLASSES) if label != GOES]
    yield from forgets(
        world,
        lambda model, gone, kept: amnesiac(
            model, gone, kept, classes=others, epochs=2, loss=loss, **training()
        ),
    )


@together("edit", retrained)
def retraining(world: World) -> Act:
    """A network of the same build that never saw the class."""
    yield from forgets(
        world,
        lambda model, gone, kept: retrained(
            model, kept, initialise=begin_anew, epochs=10, loss=loss, **training()
        ),
    )
