"""How layers of synapses and parametrizations of weights take part."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from neuropil.nn import (
    ActiveBlock,
    AxonalDelay,
    CosineLinear,
    Dale,
    DelayLinear,
    ExponentialSynapse,
    FeedbackLinear,
    MirroredFeedbackLinear,
    Sequential,
    SignSymmetricLinear,
    SparseLinear,
    TracedLinear,
)
from tests.together.world import HIDDEN, Act, World, part, seeded, together

Make = Callable[[int, int], nn.Module]


def lies(make: Make, *places: str) -> Callable[[World], None]:
    """Plan: take the first free place for synapses, of those given."""

    def plan(world: World) -> None:
        world.own_layers.append(world.take(places[0], make, *places[1:]))

    return plan


INNER = (
    "second",
    "last",
)  # an answer may well be made by a layer of another kind, but not by one that delays it


def layer_of(world: World, place: str, moment: str) -> nn.Module:
    return part(world.life.models[moment], place)


@together("layer", FeedbackLinear, plan=lies(lambda i, o: FeedbackLinear(i, o, generator=seeded()), *INNER))
def feedback_linear(world: World) -> Act:
    """Errors come back through weights that no learning touches."""
    place = world.own_layers.pop(0)
    yield
    yield
    yield
    start, end = (layer_of(world, place, moment) for moment in ("start", "ended"))
    rows = min(len(start.feedback), len(end.feedback))
    assert torch.equal(start.feedback[:rows], end.feedback[:rows])
    sends_back(end, end.feedback)


def sends_back(layer: nn.Module, feedback: Tensor) -> None:
    x = torch.rand(3, layer.in_features, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, feedback.detach().sum(0).expand(3, -1))


@together("layer", SignSymmetricLinear, plan=lies(lambda i, o: SignSymmetricLinear(i, o), *INNER))
def sign_symmetric_linear(world: World) -> Act:
    """Errors come back by the signs of the weights as they are now."""
    place = world.own_layers.pop(0)
    yield
    yield
    yield
    layer = layer_of(world, place, "ended")
    x = torch.rand(1, layer.in_features, requires_grad=True)
    layer(x)[0, 0].backward()
    back, signs = x.grad[0], layer.weight.detach()[0].sign()
    assert torch.equal(back.sign(), signs) and back.abs().max() - back.abs()[signs != 0].min() < 1e-6


@together("layer", MirroredFeedbackLinear, plan=lies(lambda i, o: MirroredFeedbackLinear(i, o), *INNER))
def mirrored_feedback_linear(world: World) -> Act:
    place = world.own_layers.pop(0)
    yield
    yield
    yield
    layer = layer_of(world, place, "ended")
    sends_back(layer, layer.feedback)


@together(
    "layer", SparseLinear, plan=lies(lambda i, o: SparseLinear(i, o, density=0.5, generator=seeded()), *INNER)
)
def sparse_linear(world: World) -> Act:
    """The pattern stays as it was drawn."""
    place = world.own_layers.pop(0)
    yield
    yield
    yield
    start, end = (layer_of(world, place, moment) for moment in ("start", "ended"))
    assert all(torch.equal(a, b) for a, b in zip(start.entries(), end.entries(), strict=True))
    assert len(end.values) == len(start.values)
    assert len(end.values) < end.in_features * end.out_features


@together(
    "layer",
    DelayLinear,
    plan=lies(lambda i, o: DelayLinear(i, o, 2, learn=True, generator=seeded()), "second"),
)
def delay_linear(world: World) -> Act:
    """Delays learn and stay between nothing and the longest."""
    place = world.own_layers.pop(0)
    yield
    yield
    yield
    delays = layer_of(world, place, "ended").delays
    assert bool(((delays >= 0) & (delays <= 2)).all())


@together("layer", TracedLinear, plan=lies(lambda i, o: TracedLinear(i, o, decay=0.5), "second", "last"))
def traced_linear(world: World) -> Act:
    """What it passes on is its weights times its input; traces serve the gradient alone."""
    place = world.own_layers.pop(0)
    yield
    yield
    yield
    layer = layer_of(world, place, "ended").eval()
    x = (torch.rand(4, 2, layer.in_features) < 0.5).float()
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[0], nn.functional.linear(x, layer.weight, layer.bias))


@together("layer", CosineLinear, plan=lies(lambda i, o: CosineLinear(i, o, scale=2.0), *INNER))
def cosine_linear(world: World) -> Act:
    """No answer is larger than its scale."""
    place = world.own_layers.pop(0)
    yield
    yield
    yield
    layer = layer_of(world, place, "ended")
    with torch.no_grad():
        assert float(layer(torch.randn(50, layer.weight.shape[1])).abs().max()) <= float(layer.scale) * (
            1 + 1e-5
        )


def block(inputs: int, outputs: int) -> nn.Module:
    return ActiveBlock(nn.Linear(inputs, 2 * inputs), nn.Linear(2 * inputs, outputs))


@together("layer", ActiveBlock, plan=lies(block, "second"))
def active_block(world: World) -> Act:
    """One input and its active units give what the whole block gives."""
    place = world.own_layers.pop(0)
    yield
    yield
    yield
    layer, x = layer_of(world, place, "ended"), torch.rand(HIDDEN)
    with torch.no_grad():
        torch.testing.assert_close(layer.sample(x, torch.arange(2 * HIDDEN)), layer(x[None])[0])


def delayed(inputs: int, outputs: int) -> nn.Module:
    return Sequential(AxonalDelay(1), nn.Linear(inputs, outputs))


@together("layer", AxonalDelay, plan=lies(delayed, "second"))
def axonal_delay(world: World) -> Act:
    """Nothing reaches the synapses before its time."""
    place = world.own_layers.pop(0)
    yield
    yield
    yield
    delay = layer_of(world, place, "ended")[0]
    x = torch.rand(4, 2, HIDDEN)
    assert torch.equal(delay(x)[0], torch.cat([torch.zeros(1, 2, HIDDEN), x[:-1]]))


def filtered(inputs: int, outputs: int) -> nn.Module:
    return Sequential(nn.Linear(inputs, outputs), ExponentialSynapse(2.0, learn=True))


@together("layer", ExponentialSynapse, plan=lies(filtered, "second"))
def exponential_synapse(world: World) -> Act:
    """Its time constant learns and stays above nothing."""
    place = world.own_layers.pop(0)
    yield
    yield
    yield
    filters = layer_of(world, place, "ended")[1]
    assert all(bool((value > 0).all()) for value in filters.numbers(torch.float32).values())


def signs() -> Tensor:
    return torch.where(torch.arange(HIDDEN) < 12, 1.0, -1.0)


@together("parametrization", Dale)
def dale(world: World) -> Act:
    """A neuron excites all it reaches, or inhibits all, whatever else acts on its synapses."""
    layer = part(world.model, "last")
    register_parametrization(layer, "weight", Dale(signs(), rectifier="abs"))
    yield
    yield
    yield
    yield
    for moment in ("one", "two", "ended", "edited"):
        weight = layer_of(world, "last", moment).weight
        assert bool((weight * signs() >= 0).all()), f"a synapse has the other sign, {moment}"
