"""Task vectors are vectors, and the tangent model is the first-order expansion and nothing else."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from neuropil.editing import (
    TangentModel,
    TaskVector,
    linearize,
    ntk_localization,
    ties_merge,
    weight_disentanglement_error,
)
from neuropil.errors import ConfigError, DataError, IncompatibleError, ShapeError, UnknownNameError
from neuropil.nn import FeedbackLinear
from tests.training.worlds import mlp


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def around(model: nn.Module, size: float = 0.3) -> TaskVector:
    generator = torch.Generator().manual_seed(2)
    return TaskVector(
        {n: size * torch.randn(p.shape, generator=generator) for n, p in model.named_parameters()}
    )


def adding() -> Any:
    model = mlp()
    return partial(around(model).apply_to, scale=0.5), model


def subtracting_from_one_layer() -> Any:
    model = mlp()
    tensors = dict(list(around(model).tensors.items())[:1])
    return (-TaskVector(tensors)).apply_to, model


def tangent() -> Any:
    return around(small()).apply_to(linearize(small())), torch.randn(5, 4)


def disentanglement() -> Any:
    model = small().double()
    vectors = [TaskVector.between(model, small().double()) for _ in range(2)]
    inputs = [torch.randn(7, 4, dtype=torch.double) for _ in range(2)]
    return partial(weight_disentanglement_error, model, vectors, inputs)


def localization() -> Any:
    return partial(ntk_localization, small(), torch.randn(6, 4), torch.randn(5, 4), torch.randn(5, 4))


PARTS = [
    ("edit", adding),
    ("edit", subtracting_from_one_layer),
    ("module", tangent),
    ("analysis", disentanglement),
    ("analysis", localization),
]


def test_vectors_follow_the_laws_of_a_vector_space() -> None:
    torch.manual_seed(0)
    base, first, second = small(), small(), small()
    a, b = TaskVector.between(base, first), TaskVector.between(base, second)
    x = torch.randn(5, 4)
    torch.testing.assert_close(a.apply_to(base)(x), first(x))
    torch.testing.assert_close(sum([a, b]).apply_to(base)(x), b.apply_to(first)(x))
    torch.testing.assert_close((a - b).apply_to(second)(x), first(x))
    torch.testing.assert_close((2 * a - a * 2 + b).apply_to(base)(x), second(x))
    flat = torch.cat([value.flatten() for value in a.tensors.values()])
    other = torch.cat([value.flatten() for value in b.tensors.values()])
    assert a.norm == pytest.approx(float(flat.norm()), rel=1e-5)
    assert a.dot(b) == pytest.approx(float(flat @ other), rel=1e-4)
    assert a.cosine(-3 * a) == pytest.approx(-1) and (0 * a).cosine(a) == 0


def test_only_what_moved_is_in_the_vector_and_a_tied_weight_moves_in_both_places() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.out.weight = self.into.weight
            self.other = nn.Linear(3, 3)

    base = Tied()
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        tuned.into.weight.add_(1.0)
    vector = TaskVector.between(base, tuned)
    assert list(vector.tensors) == ["into.weight"]
    edited = vector.apply_to(base)
    assert edited.out.weight is edited.into.weight and torch.equal(edited.out.weight, tuned.out.weight)
    assert edited.other.weight is base.other.weight


def test_the_tangent_model_is_the_jacobian_times_the_offset() -> None:
    torch.manual_seed(0)
    net, x = small().double(), torch.randn(5, 4, dtype=torch.double)
    vector = around(net).tensors
    vector = TaskVector({name: value.double() for name, value in vector.items()})
    model = vector.apply_to(linearize(net))
    names, values = zip(*((n, p.detach()) for n, p in net.named_parameters()), strict=True)

    def answer(*weights: Tensor) -> Tensor:
        return torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (x,))

    expected = net(x)
    for name, slope in zip(names, jacobian(answer, values), strict=True):
        expected = expected + torch.einsum("bo...,...->bo", slope, vector.tensors[name])
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model.change(x), expected - net(x))


def test_the_expansion_is_right_to_second_order() -> None:
    torch.manual_seed(0)
    net, x = small().double(), torch.randn(20, 4, dtype=torch.double)
    tangent, direction = linearize(net), around(net, 0.1)
    errors = [
        float((direction.apply_to(net, s)(x) - direction.apply_to(tangent, s)(x)).norm().detach())
        for s in (1.0, 0.5, 0.25)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2) and errors[1] / errors[2] == pytest.approx(
        4, rel=0.2
    )


def test_training_the_offset_gives_the_gradient_of_a_linear_model() -> None:
    """Squared error of a linear model: gradient descent goes where the closed form of the kernel says."""
    torch.manual_seed(0)
    net, x, y = small().double(), torch.randn(6, 4, dtype=torch.double), torch.randn(6, 3, dtype=torch.double)
    model, rate = linearize(net), 0.01
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    outputs = []
    for _ in range(5):
        output = model(x)
        outputs.append(output.detach().flatten())
        optimizer.zero_grad()
        (0.5 * (output - y).square().sum()).backward()
        optimizer.step()
    names = [n for n, _ in net.named_parameters()]
    slopes = jacobian(
        lambda *w: torch.func.functional_call(net, dict(zip(names, w, strict=True)), (x,)),
        tuple(p.detach() for p in net.parameters()),
    )
    rows = torch.cat([slope.reshape(18, -1) for slope in slopes], 1)
    expected = outputs[0]
    for output in outputs[1:]:
        expected = expected - rate * rows @ rows.mT @ (expected - y.flatten())
        torch.testing.assert_close(output, expected)


def test_the_anchor_stays_frozen_in_evaluation_mode_and_apart_from_the_model() -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3))
    net[3].requires_grad_(False)
    x, before = torch.randn(8, 4), net.eval()(torch.ones(2, 4))
    model = linearize(net.train()).train()
    assert sorted(model.offset) == ["0/bias", "0/weight", "1/bias", "1/weight"]
    model(x).sum().backward()
    assert net.training and all(p.grad is None for p in net.parameters())
    assert all(p.grad is not None for p in model.offset.values())
    with torch.no_grad():
        net[0].weight.add_(1.0)
    torch.testing.assert_close(model(torch.ones(2, 4)), before)


def test_vectors_of_a_linear_model_on_their_own_inputs_do_not_disturb_each_other() -> None:
    """Tasks that live on different input coordinates: a linear layer's vectors are disentangled, by construction."""
    torch.manual_seed(0)
    base = nn.Linear(6, 3)
    apart = [
        TaskVector({"weight": torch.randn(3, 6) * mask}) for mask in torch.eye(2).repeat_interleave(3, 1)
    ]
    inputs = [torch.randn(50, 6) * mask for mask in torch.eye(2).repeat_interleave(3, 1)]
    for model in (base, linearize(base)):
        assert weight_disentanglement_error(model, apart, inputs).mean == 0
        crossed = weight_disentanglement_error(model, apart, inputs[::-1], scales=(0.0, 1.0))
        assert crossed.error[0, 0] == 0 and crossed.error[1, 1] > 0.5


def test_disentanglement_error_is_the_formula_written_out() -> None:
    torch.manual_seed(0)
    base, inputs = small(), [torch.randn(40, 4) for _ in range(2)]
    a, b = (TaskVector.between(base, small()) for _ in range(2))
    for model in (base, linearize(base)):
        found = weight_disentanglement_error(model, [a, b], inputs, scales=(-1.0, 0.5))
        for i, s in enumerate((-1.0, 0.5)):
            for j, t in enumerate((-1.0, 0.5)):
                both = (s * a + t * b).apply_to(model)
                expected = sum(
                    float((alone.apply_to(model)(x).argmax(1) != both(x).argmax(1)).float().mean())
                    for alone, x in ((s * a, inputs[0]), (t * b, inputs[1]))
                )
                assert float(found.error[i, j]) == pytest.approx(expected)


def test_eigenfunctions_are_normal_on_their_task_and_vanish_where_the_kernel_does() -> None:
    torch.manual_seed(0)
    net = nn.Linear(6, 2, bias=False).double()
    task = torch.cat((torch.randn(30, 3), torch.zeros(30, 3)), 1).double()
    found = ntk_localization(net, task, task, task.flip(1), share=1.0)
    assert found.kept == 3  # a linear layer's kernel is that of the inputs, of rank three here
    torch.testing.assert_close(found.inside.mean(), torch.tensor(3.0))
    assert float(found.outside.abs().max()) < 1e-10
    expected = torch.linalg.eigvalsh(2 * (task @ task.mT) / 30).flip(0).clamp_min(0).float()
    torch.testing.assert_close(found.eigenvalues, expected)


def test_ties_of_agreeing_vectors_is_their_mean_and_of_opposed_ones_the_larger() -> None:
    a, b = TaskVector({"w": torch.tensor([1.0, 2.0, -4.0])}), TaskVector({"w": torch.tensor([3.0, 1.0, 1.0])})
    torch.testing.assert_close(ties_merge([a, b], 1.0).tensors["w"], torch.tensor([2.0, 1.5, -4.0]))
    torch.testing.assert_close(ties_merge([a, b], 0.34).tensors["w"], torch.tensor([3.0, 0.0, -4.0]))
    torch.testing.assert_close(ties_merge([a], 1.0).tensors["w"], a.tensors["w"])


def test_bad_input_is_one_line() -> None:
    net, x = small(), [torch.randn(3, 4)] * 2
    wide = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3))
    vector = TaskVector.between(net, small())
    for error, word, call in (
        (IncompatibleError, "'0.weight' is", lambda: TaskVector.between(net, wide)),
        (UnknownNameError, "no parameter '9.weight'", lambda: TaskVector({"9.weight": x[0]}).apply_to(net)),
        (
            UnknownNameError,
            "no parameter '9.weight'",
            lambda: TaskVector({"9.weight": x[0]}).apply_to(linearize(net)),
        ),
        (ShapeError, "there", lambda: vector.apply_to(wide)),
        (IncompatibleError, "requires gradients", lambda: TangentModel(small().requires_grad_(False))),
        (ConfigError, "two of each", lambda: weight_disentanglement_error(net, [vector], x)),
        (DataError, "no scale", lambda: weight_disentanglement_error(net, [vector] * 2, x, scales=())),
        (ConfigError, "share is 0", lambda: ntk_localization(net, *x, x[0], share=0)),
        (DataError, "empty", lambda: ntk_localization(net, *x, x[0][:0])),
        (ConfigError, "density", lambda: ties_merge([vector], 0)),
        (ConfigError, "no vectors", lambda: ties_merge([])),
    ):
        with pytest.raises(error, match=word) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_part_without_a_forward_mode_derivative_is_named() -> None:
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), FeedbackLinear(5, 3))
    tangent = linearize(net)
    with pytest.raises(
        IncompatibleError, match=r"part '2' \(FeedbackLinear\) has no forward-mode derivative"
    ) as told:
        tangent(torch.randn(2, 4))
    assert len(str(told.value).splitlines()) == 1
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tangent.modules())


def test_what_fails_without_a_derivative_too_is_told_as_it_is() -> None:
    tangent = linearize(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))
    with pytest.raises(RuntimeError, match="shapes"):
        tangent(torch.randn(2, 7))
