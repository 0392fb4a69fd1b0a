from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuropil.continual import HLOP, HebbianSubspace, Rehearsal
from neuropil.continual.projection import remove_directions, subspace_sizes
from neuropil.errors import (
    ShapeError,
)
from neuropil.nn import (
    DSR,
    LIF,
    FeedbackConv2d,
    FeedbackLinear,
    RateReadout,
    Sequential,
    SignSymmetricConv2d,
    SignSymmetricLinear,
    TracedConv2d,
    TracedLinear,
    WeightedRateReadout,
)
from neuropil.nn.presynaptic import observe, rows
from neuropil.training import Trainer
from tests.training.worlds import CLASSES, FEATURES, mlp, sgd, spiking, stream


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hlop(weighted_rate: bool = False, **settings: Any) -> Any:
    rate = DSR().weights(4) if weighted_rate else None
    return lambda model: HLOP(model, tasks=3, rate=rate, generator=seeded(), **settings)


PARTS = [
    ("plugin", hlop),
    ("plugin", partial(hlop, levels=40)),
    ("plugin", partial(hlop, weighted_rate=True)),
    ("plugin", partial(hlop, sample_rows=8)),
]

# Each kind of layer with an input that has a batch of 6, and a time of 5 where it lives in time.
LAYERS = {
    "linear": lambda: (nn.Linear(20, 7, bias=False), (6, 20)),
    "tokens": lambda: (nn.Linear(20, 7, bias=False), (6, 3, 20)),
    "feedback": lambda: (FeedbackLinear(20, 7, bias=False), (6, 20)),
    "sign": lambda: (SignSymmetricLinear(20, 7, bias=False), (6, 20)),
    "conv": lambda: (nn.Conv2d(5, 7, 2, bias=False), (6, 5, 4, 3)),
    "strided": lambda: (nn.Conv2d(5, 7, 2, stride=2, padding=1, bias=False), (6, 5, 4, 3)),
    "same": lambda: (nn.Conv2d(5, 7, 3, padding="same", padding_mode="reflect", bias=False), (6, 5, 4, 3)),
    "dilated": lambda: (nn.Conv2d(5, 7, 2, dilation=2, padding=1, bias=False), (6, 5, 4, 3)),
    "feedback_conv": lambda: (FeedbackConv2d(5, 7, 2, stride=2, bias=False), (6, 5, 4, 3)),
    "sign_conv": lambda: (SignSymmetricConv2d(5, 7, 2, padding=1, bias=False), (6, 5, 4, 3)),
    "traced": lambda: (TracedLinear(20, 7, bias=False, decay=0.5), (5, 6, 20)),
    "traced_conv": lambda: (TracedConv2d(5, 7, 2, bias=False, decay=0.5), (5, 6, 5, 4, 3)),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)


class Weighs(nn.Module):
    """A model around one layer, which may answer with a state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y[0] if isinstance(y, tuple) else y


def protected(kind: str, **settings: Any) -> tuple[Weighs, HLOP, tuple[int, ...], Tensor]:
    """A layer in its second task, with 8 random directions frozen after its first."""
    torch.manual_seed(0)
    layer, shape = LAYERS[kind]()
    model = Weighs(layer).double()
    n = layer.weight[0].numel()
    hlop = HLOP(model, sizes={"layer": (8, 4)}, generator=seeded(), **settings)
    hlop.before_task()
    hlop.after_task()
    hlop.before_task()
    basis = hlop.bases["layer"]
    torch.testing.assert_close(basis @ basis.mT, torch.eye(8, dtype=torch.double))
    assert basis.shape == (8, n)
    return model, hlop, shape, basis


def weight_gradient(model: Weighs, hlop: HLOP | None, x: Tensor, error_seed: int = 1) -> Tensor:
    model.zero_grad()
    y = model(x)
    error = torch.randn(y.shape, dtype=y.dtype, generator=seeded(error_seed))
    y.backward(error)
    gradients = {"layer.weight": model.layer.weight.grad}
    return (hlop.on_gradients(gradients) if hlop else gradients)["layer.weight"].clone()


@every_layer
def test_gradient_is_error_times_the_unprotected_part_of_activity(kind: str) -> None:
    model, hlop, shape, basis = protected(kind)
    x = torch.randn(shape, dtype=torch.double)
    found = weight_gradient(model, hlop, x)
    plain = copy.deepcopy(model)
    seen: list[Tensor] = []
    observe(plain.layer, seen.append)
    weight = plain.layer.weight.detach()
    raw = weight_gradient(plain, None, x)
    # G^T (I - P) X by hand: rows of G from the layer's own equation y = X W^T
    activity = rows(plain.layer, seen[0])
    y = plain(x)
    error = torch.randn(y.shape, dtype=y.dtype, generator=seeded(1))
    if isinstance(plain.layer, nn.Conv2d):
        error = error.reshape(-1, *error.shape[-3:]).permute(0, 2, 3, 1)
    error = error.reshape(-1, weight.shape[0])
    unprotected = activity - activity @ basis.mT @ basis
    torch.testing.assert_close(raw, (error.mT @ activity).view_as(weight))  # the rows are the right ones
    torch.testing.assert_close(found, (error.mT @ unprotected).view_as(weight))
    torch.testing.assert_close(found, remove_directions(raw, basis))  # both ways to project agree


@every_layer
def test_a_step_changes_no_output_on_protected_activity(kind: str) -> None:
    model, hlop, shape, basis = protected(kind)
    layer, before = model.layer, model.layer.weight.detach().clone()
    old = torch.randn(50, 8, dtype=torch.double) @ basis
    step = weight_gradient(model, hlop, torch.randn(shape, dtype=torch.double))
    with torch.no_grad():
        layer.weight -= 0.5 * step
    change = (layer.weight - before).flatten(1)
    assert change.norm() > 0.1
    torch.testing.assert_close(old @ change.mT, torch.zeros(50, 7, dtype=torch.double), rtol=0, atol=1e-12)
    ablated = weight_gradient(copy.deepcopy(model), None, torch.randn(shape, dtype=torch.double))
    assert (old @ ablated.flatten(1).mT).norm() > 1


@every_layer
def test_forward_pass_and_errors_are_those_without_it(kind: str) -> None:
    model, _, shape, _ = protected(kind)
    plain = copy.deepcopy(model)
    results = []
    for each in (model, plain):
        x = torch.randn(shape, dtype=torch.double, generator=seeded(3)).requires_grad_()
        y = each(x)
        y.backward(torch.ones_like(y))
        results.append((y.detach(), x.grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])


@every_layer
def test_many_levels_tend_to_the_linear_circuit(kind: str) -> None:
    differences = []
    for levels in (None, 40, 4000, 10**7):
        model, hlop, shape, _ = protected(kind, levels=levels)
        x = torch.randn(shape, dtype=torch.double, generator=seeded(3))
        found = weight_gradient(model, hlop, x)
        linear = found if levels is None else linear
        differences.append(float((found - linear).norm() / linear.norm()))
    assert differences[0] == 0 < differences[3] < 1e-5 < differences[2] < 1e-2 < 10 * differences[1]
    assert differences[2] < differences[1]


def test_first_task_is_learned_as_without_it() -> None:
    plain, guarded = mlp(), mlp()
    hlop = HLOP(guarded, tasks=2)
    for model, plugins in ((plain, []), (guarded, [hlop])):
        Trainer(model, sgd(model), plugins=plugins, progress=False).fit(stream(1))
    for a, b in zip(plain.parameters(), guarded.parameters(), strict=True):
        assert torch.equal(a, b)


def dsr_network() -> nn.Module:
    torch.manual_seed(0)
    return Sequential(
        nn.Linear(FEATURES, 16),
        DSR(),
        nn.Linear(16, CLASSES),
        WeightedRateReadout(DSR().weights(4)),
        time_steps=4,
    )


def online_network() -> nn.Module:
    torch.manual_seed(0)
    return Sequential(
        nn.Linear(FEATURES, 16), LIF(temporal_gradient=False),
        TracedLinear(16, CLASSES, decay=0.5), RateReadout(), time_steps=4,
    )  # fmt: skip


@pytest.mark.parametrize("network", [mlp, spiking, dsr_network, online_network])
def test_every_weight_step_of_a_whole_second_task_avoids_the_protected_span(network: Any) -> None:
    model = network().double()
    hlop = HLOP(model, tasks=3, generator=seeded())
    tasks = stream(2)
    for task in tasks:
        for split in (task.train, task.test):
            split.tensors = (split.tensors[0].double(), split.tensors[1])
    judge = Trainer(model, sgd(model), plugins=[hlop], batch_size=16, progress=False)
    judge.fit(tasks[:1])
    for circuit in hlop.subspaces.values():  # Hebbian rows are orthonormal only in the limit
        circuit.frozen = torch.linalg.qr(circuit.frozen.mT)[0].mT.contiguous()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    bases = {name: basis.clone() for name, basis in hlop.bases.items()}
    judge.fit(tasks[1:])
    moved = 0.0
    for name, p in model.named_parameters():
        layer = name.removesuffix(".weight")
        if layer in bases:
            change = p.detach() - before[name]
            assert float((bases[layer] @ change.mT).abs().max()) < 1e-12
            moved += float(change.norm())
        else:  # biases and thresholds
            assert torch.equal(p, before[name])
    assert moved > 0.01
    for name, basis in hlop.bases.items():
        assert torch.equal(basis[: len(bases[name])], bases[name])  # what is frozen stays


def test_rate_is_learned_where_there_is_time() -> None:
    """One Hebbian update per batch on the weighted rate; a static input is its own rate."""
    model = spiking()
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    hlop, by_hand = (
        HLOP(model, tasks=2, rate=weights, generator=seeded()),
        HLOP(spiking(), tasks=2, generator=seeded()),
    )
    hlop.before_task()
    by_hand.before_task()
    x = torch.rand(6, FEATURES) * 2
    seen: list[Tensor] = []
    handle = model[2].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    model(x)
    handle.remove()
    by_hand.subspaces["0"].update(x)
    by_hand.subspaces["2"].update(torch.einsum("t,tbn->bn", weights, seen[0].reshape(4, 6, 16)))
    for name in ("0", "2"):
        torch.testing.assert_close(hlop.subspaces[name].growing, by_hand.subspaces[name].growing)


def test_a_rate_of_another_length_is_refused_in_one_line() -> None:
    model = spiking()
    hlop = HLOP(model, tasks=2, rate=torch.ones(5) / 5)
    hlop.before_task()
    with pytest.raises(ShapeError, match="5 time steps") as caught:
        model(torch.rand(7, FEATURES))
    assert "\n" not in str(caught.value)


def test_sampled_rows_are_rows() -> None:
    model = nn.Sequential(nn.Linear(12, 3))
    hlop = HLOP(model, sizes={"0": (2,)}, sample_rows=5, generator=seeded())
    hlop.before_task()
    x, twin = torch.rand(9, 12), copy.deepcopy(hlop.subspaces["0"].growing)
    draw = seeded()
    torch.randn(2, 12, generator=draw)
    chosen = x[torch.randint(9, (5,), generator=draw)]
    model(x)
    expected = HebbianSubspace(12)
    expected.growing, expected.velocity = twin, torch.zeros_like(twin)
    expected.update(chosen)
    torch.testing.assert_close(hlop.subspaces["0"].growing, expected.growing)


def test_heads_of_single_tasks_learn_freely() -> None:
    model = mlp()
    hlop = HLOP(model, tasks=3, exclude=["leave"], generator=seeded())
    plain = {n: p.detach().clone() for n, p in model.named_parameters()}
    Trainer(model, sgd(model), plugins=[hlop], progress=False).fit(stream(2))
    assert set(hlop.bases) == {"enter", "inner"}
    assert all(p.requires_grad == (n in FREE) for n, p in model.named_parameters())
    assert not torch.equal(model.leave.bias, plain["leave.bias"])


FREE = {"enter.weight", "inner.weight", "leave.weight", "leave.bias"}


def test_normalisation_stands_still_from_the_second_task_on() -> None:
    model = nn.Sequential(nn.Linear(FEATURES, 9), nn.BatchNorm1d(9), nn.Linear(9, CLASSES))
    hlop = HLOP(model, tasks=3)
    judge = Trainer(model, sgd(model), plugins=[hlop], progress=False)
    judge.fit(stream(1))
    before = {name: value.clone() for name, value in model[1].state_dict().items()}
    judge.fit(stream(2)[1:])
    assert all(torch.equal(value, before[name]) for name, value in model[1].state_dict().items())


def test_detaching_gives_back_what_was_frozen_and_only_that() -> None:
    model = mlp()
    model.inner.bias.requires_grad_(False)  # the user's own choice
    hlop = HLOP(model, tasks=2)
    Trainer(model, sgd(model), plugins=[hlop], progress=False).fit(stream(2))
    assert not model.enter.bias.requires_grad
    hlop.detach()
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["inner.bias"]


def test_a_weight_frozen_by_the_user_stays_frozen() -> None:
    model, _, shape, _ = protected("linear")
    model.layer.weight.requires_grad_(False)
    y = model(torch.randn(shape, dtype=torch.double))
    assert not y.requires_grad and not model.layer.weight.requires_grad


def test_a_failed_forward_pass_leaves_the_weight_learnable() -> None:
    model, hlop, shape, _ = protected("linear")
    with pytest.raises(RuntimeError):
        model(torch.randn(6, 21, dtype=torch.double))
    assert model.layer.weight.requires_grad
    assert weight_gradient(model, hlop, torch.randn(shape, dtype=torch.double)).norm() > 0


def test_mixed_precision_keeps_the_protection() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 10, bias=False))
    hlop = HLOP(model, sizes={"0": (8, 4)}, generator=seeded())
    hlop.before_task()
    hlop.after_task()
    hlop.before_task()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.rand(6, 20))
    output.float().square().sum().backward()
    basis, gradient = hlop.bases["0"], model[0].weight.grad
    assert output.dtype == torch.bfloat16
    assert gradient.dtype == torch.float
    assert float((gradient @ basis.mT).norm() / gradient.norm()) < 1e-5


def test_rehearsal_learns_unprotected_between_tasks() -> None:
    model = mlp()
    hlop = HLOP(model, tasks=2, generator=seeded())
    rehearsal = Rehearsal(per_class=4, lr=0.1, generator=seeded())
    tasks = stream(2)
    judge = Trainer(model, sgd(model), plugins=[hlop, rehearsal], progress=False)
    judge.fit(tasks[:1])
    basis, before = hlop.bases["enter"].clone(), model.enter.weight.detach().clone()
    state = copy.deepcopy(hlop.state_dict()["subspaces"])
    rehearsal.after_task(tasks[1])
    assert (basis @ (model.enter.weight - before).mT).norm() > 1e-3
    after = hlop.state_dict()["subspaces"]
    assert all(torch.equal(state[n]["frozen"], after[n]["frozen"]) for n in state)
    rehearsal.after_task(tasks[1])


@pytest.mark.parametrize(("inputs", "tasks"), [(784, 8), (400, 1), (10, 3), (5, 20)])
def test_default_schedule_fits(inputs: int, tasks: int) -> None:
    sizes = subspace_sizes(inputs, tasks, fill=0.85)
    assert len(sizes) == tasks and sum(sizes) <= 0.85 * inputs and sizes[0] >= sizes[-1]
