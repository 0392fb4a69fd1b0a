from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from neuropil.continual import (
    ChunkedHyperNetwork,
    HyperNetwork,
    HyperNetworkRegularizer,
    RecurrentHyperNetwork,
    hypernetwork_drift,
)
from neuropil.errors import ConfigError, IncompatibleError
from neuropil.training import Trainer
from tests.training.worlds import BATCH, CLASSES, FEATURES, mlp, stream, task


def target() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def recurrent(**settings: Any) -> RecurrentHyperNetwork:
    return RecurrentHyperNetwork(target(), tasks=3, embedding=4, hidden=7, chunk=11, **settings)


def chunked() -> ChunkedHyperNetwork:
    return ChunkedHyperNetwork(target(), tasks=3, embedding=4, hidden=(9, 7), chunk=11)


def layer(kind: Any) -> tuple[nn.Module, Tensor]:
    return kind(), torch.randn(4, 6)


def keeper(per_step: int | None = 1) -> Any:
    """For any model: what is "written" for every task is the model's own weights."""

    def make(model: nn.Module) -> HyperNetworkRegularizer:
        return HyperNetworkRegularizer(
            model, strength=0.05, per_step=per_step, generator=torch.Generator().manual_seed(7),
            written=lambda task: torch.cat([p.flatten() for p in model.parameters()]),
        )  # fmt: skip

    return make


PARTS = [
    ("module", partial(layer, recurrent)),
    ("module", partial(layer, chunked)),
    ("plugin", keeper),
    ("plugin", partial(keeper, None)),
]
both = pytest.mark.parametrize("make", [recurrent, chunked])


def small(tasks: int = 3) -> RecurrentHyperNetwork:
    torch.manual_seed(0)
    return RecurrentHyperNetwork(
        nn.Sequential(nn.Linear(FEATURES, 10), nn.ReLU(), nn.Linear(10, CLASSES)),
        tasks=tasks, embedding=4, hidden=16, chunk=30,
    )  # fmt: skip


def test_chunks_follow_the_literal_recurrence() -> None:
    """The gated recurrent network written out in numpy, chunk after chunk."""
    net = recurrent().double()
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    p = {name: value.detach().numpy() for name, value in net.named_parameters()}
    h, chunks = np.zeros(7), []
    for c in p["chunk_embeddings"]:
        x = np.concatenate([p["task_embeddings.1"], c])
        i = p["recurrent.weight_ih_l0"] @ x + p["recurrent.bias_ih_l0"]
        r = p["recurrent.weight_hh_l0"] @ h + p["recurrent.bias_hh_l0"]
        reset, update = sigmoid(i[:7] + r[:7]), sigmoid(i[7:14] + r[7:14])
        h = (1 - update) * np.tanh(i[14:] + reset * r[14:]) + update * h
        chunks.append(p["write.weight"] @ h + p["write.bias"])
    flat = np.concatenate(chunks)[: net.size]
    scale = np.concatenate(
        [np.full(30, math.sqrt(2 / 6)), np.full(5, 0.1), np.full(15, math.sqrt(2 / 5)), np.full(3, 0.1)]
    )
    np.testing.assert_allclose(net.flat([1])[0].detach().numpy(), flat * scale, rtol=1e-6)


@both
def test_written_weights_fill_the_target(make: Any) -> None:
    net = make()
    weights = net.weights(2)
    assert {name: w.shape for name, w in weights.items()} == {
        n: p.shape for n, p in target().named_parameters()
    }
    torch.testing.assert_close(torch.cat([w.flatten() for w in weights.values()]), net.flat([0, 2])[1])
    x = torch.randn(4, 6)
    expected = functional_call(target(), weights, (x,))
    torch.testing.assert_close(net(x, task=2), expected)
    torch.testing.assert_close(net.materialize(2)(x), expected)
    net.task = 2
    torch.testing.assert_close(net(x), expected)
    net.eval()
    net.answer_as = 2
    torch.testing.assert_close(net(x), expected)


@both
def test_first_weights_have_the_variance_of_their_fan_in(make: Any) -> None:
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Linear(100, 80), nn.ReLU(), nn.Linear(80, 10))
    kind = type(make())
    net = kind(wide, tasks=4, hidden=24 if kind is RecurrentHyperNetwork else (24,), chunk=200)
    written = net.flat(range(4)).detach()
    assert float((written / net.scale).std()) == pytest.approx(1.0, rel=0.01)
    assert float(net.scale[0]) == pytest.approx(math.sqrt(2 / 100)) and float(
        net.scale[8000]
    ) == pytest.approx(0.1)


@both
def test_parameters_are_its_own(make: Any) -> None:
    net = make()
    assert not any(name.startswith("_target") for name, _ in net.named_parameters())
    names = {name.split(".")[0] for name, _ in net.named_parameters()}
    assert names == {
        "task_embeddings",
        "chunk_embeddings",
        "write",
        "recurrent" if make is recurrent else "body",
    }


@both
def test_samples_are_answered_by_the_surest_task(make: Any) -> None:
    net = make().eval()
    net.task = 2
    x = torch.randn(20, 6)
    answers = torch.stack([net(x, task=k) for k in range(3)])
    p = answers.softmax(-1)
    surest = (-(p * p.log()).sum(-1)).argmin(0)
    assert len(surest.unique()) > 1
    torch.testing.assert_close(net(x), torch.stack([answers[k, i] for i, k in enumerate(surest)]))


def test_growing_leaves_every_target_as_it_is() -> None:
    net = recurrent()
    before, parameters = net.flat(range(3)).detach(), sum(p.numel() for p in net.parameters())
    net.grow(5)
    torch.testing.assert_close(net.flat(range(3)).detach(), before, atol=1e-6, rtol=1e-5)
    assert sum(p.numel() for p in net.parameters()) > parameters
    net.flat([0]).square().sum().backward()
    assert net.write.weight.grad[:, 7:].any()  # new units can be put to use
    net.grow(2)
    torch.testing.assert_close(net.flat(range(3)).detach(), before, atol=1e-6, rtol=1e-5)


def test_drift_is_the_mean_over_tasks_of_weighted_squares() -> None:
    now, before, importance = torch.randn(3, 2, 8).double()
    expected = sum(importance[t, i] * (now[t, i] - before[t, i]) ** 2 for t in range(2) for i in range(8)) / 2
    torch.testing.assert_close(hypernetwork_drift(now, before, importance), expected)
    torch.testing.assert_close(hypernetwork_drift(now, before), (now - before).pow(2).sum() / 2)


def test_regularizer_compares_with_what_was_written_when_the_task_began() -> None:
    net = small()
    held = HyperNetworkRegularizer(net, strength=2.0, per_step=None)
    held.before_task()
    assert held.on_loss(torch.tensor(1.0), None) == 1.0 and net.task == 0
    held.after_task()
    assert not net.task_embeddings[0].requires_grad and net.task_embeddings[1].requires_grad
    held.before_task()
    held.after_task()
    held.before_task()
    noted = net.flat([0, 1]).detach().clone()
    with torch.no_grad():
        net.write.bias.add_(0.3)
    expected = (net.flat([0, 1]) - noted).square().sum(1).mean()
    torch.testing.assert_close(held.on_loss(torch.tensor(1.0), None), 1 + 2 * expected)
    one = HyperNetworkRegularizer(net, per_step=1, generator=torch.Generator().manual_seed(0))
    one.learned, one._before = 2, noted
    found = {round(float(one.drift().detach()), 4) for _ in range(20)}
    assert found == {round(float(d), 4) for d in (net.flat([0, 1]) - noted).square().sum(1).detach()}


def test_it_keeps_earlier_tasks_where_it_forgets_without() -> None:
    kept = []
    for strength in (0.0, 1.0):
        net = small(tasks=2)
        held = HyperNetworkRegularizer(net, strength=strength, generator=torch.Generator().manual_seed(0))
        trainer = Trainer(
            net, torch.optim.Adam(net.parameters(), lr=0.01), plugins=[held], batch_size=BATCH, epochs=15,
            progress=False,
        )  # fmt: skip
        first, second = stream(2)
        trainer.fit([first])
        before = net.flat([0]).detach()
        trainer.fit([second])
        net.answer_as = 1
        assert trainer.evaluate(second) > 0.9
        net.answer_as = 0
        kept.append((trainer.evaluate(first), float((net.flat([0]) - before).norm())))
    assert kept[1][0] > 0.9 > kept[0][0]
    assert kept[1][1] < 0.2 * kept[0][1]


def test_importance_is_the_fisher_information_of_the_written_weights() -> None:
    net = small()
    held = HyperNetworkRegularizer(
        net, importance=True, fisher_samples=16, generator=torch.Generator().manual_seed(0)
    )
    held.before_task(task())
    held.after_task(task())
    (importance,) = held.state_dict()["importance"]
    assert importance.shape == (net.size,) and float(importance.mean()) == pytest.approx(1.0)
    assert (importance >= 0).all() and importance.std() > 0
    held.before_task()
    noted = net.flat([0]).detach()
    with torch.no_grad():
        net.write.weight.mul_(1.2)
    moved = net.flat([0]) - noted
    torch.testing.assert_close(held.drift(), (importance * moved.square()).sum())


def test_a_saved_hypernetwork_goes_on_with_its_regularizer() -> None:
    net = small()
    held = HyperNetworkRegularizer(net)
    held.before_task()
    held.after_task()
    held.before_task()
    fresh_net = small()
    fresh_net.load_state_dict(net.state_dict())
    fresh = HyperNetworkRegularizer(fresh_net)
    fresh.load_state_dict(copy.deepcopy(held.state_dict()))
    assert fresh_net.task == 1 and not fresh_net.task_embeddings[0].requires_grad
    with torch.no_grad():
        fresh_net.write.bias.add_(0.1)
        net.write.bias.add_(0.1)
    assert torch.equal(fresh.drift(), held.drift())
    held.detach()
    assert net.task_embeddings[0].requires_grad


@pytest.mark.parametrize(
    ("call", "error", "line"),
    [
        (lambda: RecurrentHyperNetwork(target(), hidden=0), ConfigError, "width: got 0"),
        (lambda: RecurrentHyperNetwork(target(), chunk=0), ConfigError, "chunk: got 0"),
        (lambda: RecurrentHyperNetwork(nn.ReLU()), ConfigError, "no parameters to write"),
        (lambda: RecurrentHyperNetwork(nn.BatchNorm1d(3)), IncompatibleError, "buffers"),
        (lambda: ChunkedHyperNetwork(target(), hidden=()), ConfigError, "at least one width"),
        (lambda: recurrent().weights(3), ConfigError, "task 3, expected 0 to 2"),
        (lambda: recurrent().grow(0), ConfigError, "got 0 units"),
        (lambda: HyperNetworkRegularizer(mlp()), IncompatibleError, "is no HyperNetwork"),
        (lambda: HyperNetworkRegularizer(recurrent(), strength=-1), ConfigError, "strength: got -1"),
        (lambda: HyperNetworkRegularizer(recurrent(), per_step=0), ConfigError, "per_step: got 0"),
        (
            lambda: HyperNetworkRegularizer(recurrent(), importance=True).after_task(),
            ConfigError,
            "estimated on a task",
        ),
        (
            lambda: HyperNetwork(target(), tasks=1, embedding=2, width=2, chunk=5).flat([0]),
            TypeError,
            "must define states",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(call: Any, error: type[Exception], line: str) -> None:
    with pytest.raises(error, match=line) as caught:
        call()
    assert "\n" not in str(caught.value)
