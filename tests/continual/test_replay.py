from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader

from neuropil.continual import Rehearsal, Replay, ReplayBuffer
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


PARTS = [("plugin", replay), ("plugin", rehearsal)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 99))
def test_every_class_has_its_share_and_no_sample_twice(labels: list[int], per_class: int, seed: int) -> None:
    targets = torch.tensor(labels)
    buffer = ReplayBuffer(per_class, generator=seeded(seed))
    buffer.add(torch.arange(len(labels))[:, None], targets, None)
    kept = buffer.draw(len(buffer))
    assert torch.bincount(kept.targets, minlength=5).tolist() == [
        min(per_class, labels.count(label)) for label in range(5)
    ]
    positions = kept.inputs[:, 0]
    assert len(positions.unique()) == len(positions)
    assert torch.equal(targets[positions], kept.targets)


def test_draws_are_without_replacement_until_all_are_drawn() -> None:
    buffer = ReplayBuffer(4, generator=seeded())
    buffer.add(torch.arange(8)[:, None], torch.arange(8) % 2, None)
    for _ in range(5):
        assert len(buffer.draw(6).inputs.unique()) == 6
    counts = torch.bincount(buffer.draw(20).inputs[:, 0])
    assert sorted(counts.tolist()) == [2] * 4 + [3] * 4


def test_an_empty_buffer_and_a_bad_share_are_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        ReplayBuffer(1).draw(1)
    with pytest.raises(ConfigError, match="per_class: got 0"):
        Replay(per_class=0)


def test_tasks_are_remembered_one_beside_the_other() -> None:
    buffer = ReplayBuffer(3, generator=seeded())
    tasks = stream(2)
    for now in tasks:
        buffer.add_task(now)
    memory = buffer.draw(len(buffer)).inputs
    assert len(buffer) == 2 * 3 * CLASSES
    for now in tasks:
        of_task = (memory[:, None] == now.train.tensors[0][None]).all(-1).any(1)
        assert of_task.sum() == 3 * CLASSES


def test_a_dataloader_is_remembered_too() -> None:
    source = task()
    loader = DataLoader(source.train, batch_size=5, shuffle=True, generator=seeded())
    buffer = ReplayBuffer(2, generator=seeded())
    buffer.add_task(Task("loaded", loader, source.validation, source.test))
    assert len(buffer) == 2 * CLASSES


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
