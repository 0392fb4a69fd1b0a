from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from neuropil.continual import PerClassBuffer, Rehearsal, Replay, ReservoirBuffer, RingBuffer
from neuropil.data import Task
from neuropil.data.task import Batch
from neuropil.errors import ConfigError
from tests.training.worlds import CLASSES, FEATURES, loss_on, mlp, practise, same, sgd, stream, task, weights


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def replay() -> Any:
    return lambda model: Replay(per_class=3, generator=seeded())


def rehearsal() -> Any:
    return lambda model: Rehearsal(per_class=3, epochs=2, generator=seeded())


def reservoir(online: bool = False) -> Any:
    return lambda model: Replay(buffer=ReservoirBuffer(20, generator=seeded()), online=online, batch_size=7)


def recent_first() -> Any:
    return lambda model: Replay(
        buffer=RingBuffer(9, generator=seeded()),
        batch_size=5,
        schedule=lambda tasks: list(range(1, tasks + 1)),
    )


PARTS = [
    ("plugin", replay),
    ("plugin", rehearsal),
    ("plugin", reservoir),
    ("plugin", partial(reservoir, online=True)),
    ("plugin", recent_first),
]


def test_a_buffer_brings_its_own_size() -> None:
    for bad in ({"per_class": 3}, {"generator": seeded()}):
        with pytest.raises(ConfigError, match="a buffer brings its size"):
            Replay(buffer=RingBuffer(3), **bad)
    with pytest.raises(ConfigError, match=r"Replay.batch_size: got 0"):
        Replay(batch_size=0)
    assert isinstance(Replay().buffer, PerClassBuffer) and Replay().buffer.per_class == 50


def test_a_schedule_says_from_which_tasks_to_draw() -> None:
    plugin = Replay(
        buffer=RingBuffer(4, generator=seeded()), batch_size=50, schedule=lambda n: [0.0] * (n - 1) + [1]
    )
    for index in range(3):
        plugin.buffer.add(torch.full((4, 1), float(index)), torch.zeros(4).long())
    joined = plugin.before_batch(Batch(torch.full((2, 1), 9.0), torch.zeros(2).long()))
    assert joined.inputs[:2].eq(9).all() and joined.inputs[2:].eq(2).all() and len(joined.inputs) == 52


def test_online_a_batch_is_remembered_once_it_was_learned() -> None:
    plugin = Replay(buffer=RingBuffer(6, generator=seeded()), online=True, batch_size=50)
    first = plugin.before_batch(Batch(torch.full((3, 1), 1.0), torch.zeros(3).long(), (0, 1)))
    assert len(first.inputs) == 3  # nothing to join yet
    second = plugin.before_batch(Batch(torch.full((3, 1), 2.0), torch.zeros(3).long(), (0, 1)))
    assert second.inputs[3:].eq(1).all()
    plugin.after_task(task(0))
    plugin.before_batch(Batch(torch.full((3, 1), 3.0), torch.zeros(3).long(), (2, 3)))
    assert plugin.buffer.tasks == 2
    assert (
        plugin.buffer.select(plugin.buffer.positions(1)).classes.tolist() == [[False, False, True, True]] * 3
    )


def test_nothing_is_joined_before_the_first_task_ends() -> None:
    batch = Batch(torch.rand(6, FEATURES), torch.arange(6) % CLASSES)
    plugin = Replay(per_class=2, batch_size=5, generator=seeded())
    assert plugin.before_batch(batch) is batch
    plugin.after_task(task())
    joined = plugin.before_batch(batch)
    assert len(joined.inputs) == len(joined.targets) == 11
    assert torch.equal(joined.inputs[:6], batch.inputs) and joined.classes is None


def test_each_sample_keeps_the_answers_of_its_own_task() -> None:
    plugin = Replay(per_class=2, generator=seeded())
    plugin.after_task(task(0, classes=(0, 1)))
    new = Batch(torch.rand(4, FEATURES), torch.tensor([2, 3, 2, 3]), (2, 3))
    joined = plugin.before_batch(new)
    assert joined.classes[:4].tolist() == [[False, False, True, True]] * 4
    assert joined.classes[4:].tolist() == [[True, True, False, False]] * 4
    twice = plugin.before_batch(joined)  # a second plugin of the kind: masks stay
    assert torch.equal(twice.classes[:8], joined.classes)


def test_one_task_without_classes_allows_all_to_all() -> None:
    plugin = Replay(per_class=1, generator=seeded())
    plugin.after_task(task(0))
    assert plugin.before_batch(Batch(torch.rand(2, FEATURES), torch.tensor([2, 3]), (2, 3))).classes is None


def test_rehearsal_is_plain_gradient_descent_on_the_memory() -> None:
    model, twin = mlp(), mlp()
    plugin = Rehearsal(per_class=2, epochs=1, lr=0.05, batch_size=100, generator=seeded())
    plugin.before_fit(model, None)
    first, second = stream(2)
    plugin.after_task(first)
    assert same(weights(model), weights(twin))  # one task alone was just learned
    plugin.after_task(second)
    memory = plugin.buffer.draw(len(plugin.buffer))
    optimizer = sgd(twin, 0.05)
    nn.functional.cross_entropy(twin(memory.inputs), memory.targets).backward()
    optimizer.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert all(p.grad is None for p in model.parameters())


def test_rehearsal_counts_tasks_itself() -> None:
    """A user's tasks need not say their index."""
    model = mlp()
    plugin = Rehearsal(per_class=2, generator=seeded())
    plugin.before_fit(model, None)
    before = weights(model)
    for name in "ab":
        source = task()
        plugin.after_task(Task(name, source.train, source.validation, source.test))
    assert not same(weights(model), before)


def test_rehearsal_needs_to_know_the_model() -> None:
    with pytest.raises(ConfigError, match="before_fit"):
        Rehearsal().after_task(task())


def test_replay_keeps_an_earlier_task() -> None:
    losses = []
    first, second = stream(2)
    for remembers in (False, True):
        model, plugin = mlp(), Replay(per_class=12, generator=seeded())
        practise(model, [], first, 20, 0.1)
        if remembers:
            plugin.after_task(first)
        practise(model, [plugin], second, 20, 0.1)
        losses.append(loss_on(model, first))
    assert losses[1] < 0.2 * losses[0]
