from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from neuropil.continual import ClassBalancedBuffer, PerClassBuffer, ReplayBuffer, ReservoirBuffer, RingBuffer
from neuropil.data import Task
from neuropil.errors import ConfigError, ShapeError
from tests.training.worlds import CLASSES, stream, task

MAKERS: dict[str, Callable[[torch.Generator], ReplayBuffer]] = {
    "per class": lambda g: PerClassBuffer(3, generator=g),
    "reservoir": lambda g: ReservoirBuffer(10, generator=g),
    "ring": lambda g: RingBuffer(7, generator=g),
    "balanced": lambda g: ClassBalancedBuffer(10, generator=g),
}
every_buffer = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(labels: list[int], start: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs that are their own position, to tell afterwards who is who."""
    return torch.arange(start, start + len(labels))[:, None], torch.tensor(labels)


def held(buffer: ReplayBuffer) -> list[int]:
    return sorted(buffer.select(torch.arange(len(buffer))).inputs[:, 0].tolist()) if len(buffer) else []


@every_buffer
@settings(max_examples=25, deadline=None)
@given(parts=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=15), min_size=1, max_size=5))
def test_what_is_held_was_offered_once_with_its_label_and_task(
    make: Callable[[torch.Generator], ReplayBuffer], parts: list[list[int]]
) -> None:
    buffer, labels, tasks = make(seeded()), [], []
    for number, part in enumerate(parts):
        buffer.add(*numbered(part, start=len(labels)), (0, 1, 2, 3, 4))
        labels += part
        tasks += [number] * len(part)
    names = held(buffer)
    assert len(set(names)) == len(names)
    everything = buffer.select(torch.arange(len(buffer)))
    assert everything.targets.tolist() == [labels[i] for i in everything.inputs[:, 0].tolist()]
    for number in range(len(parts)):
        mine = buffer.positions(number)
        assert all(tasks[i] == number for i in everything.inputs[mine, 0].tolist())


@every_buffer
def test_saved_and_restored_it_goes_on_alike(make: Callable[[torch.Generator], ReplayBuffer]) -> None:
    whole, first, second = make(seeded()), make(seeded()), make(seeded(1))
    for buffer in (whole, first):
        buffer.add(*numbered([0, 1, 2, 3] * 6), (0, 1, 2, 3))
        buffer.draw(5)
    second.load_state_dict(first.state_dict())
    for buffer in (whole, second):
        buffer.add(*numbered([1, 4] * 9, start=24))
    assert held(whole) == held(second)
    assert torch.equal(whole.draw(6).inputs, second.draw(6).inputs)


@every_buffer
def test_what_was_offered_may_change_afterwards(make: Callable[[torch.Generator], ReplayBuffer]) -> None:
    buffer, inputs, targets = make(seeded()), torch.zeros(12, 2), torch.arange(12) % 3
    buffer.add(inputs, targets)
    inputs.fill_(9.0)
    assert not buffer.draw(5).inputs.any()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 99))
def test_every_class_has_its_share(labels: list[int], per_class: int, seed: int) -> None:
    buffer = PerClassBuffer(per_class, generator=seeded(seed))
    buffer.add(*numbered(labels))
    kept = buffer.draw(len(buffer))
    expected = [min(per_class, labels.count(label)) for label in range(5)]
    assert torch.bincount(kept.targets, minlength=5).tolist() == expected


def test_tasks_are_remembered_one_beside_the_other() -> None:
    buffer = PerClassBuffer(3, generator=seeded())
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
    buffer = PerClassBuffer(2, generator=seeded())
    buffer.add_task(Task("loaded", loader, source.validation, source.test))
    assert len(buffer) == 2 * CLASSES


@pytest.mark.parametrize("size", [1, 7, 60])
def test_a_reservoir_holds_every_sample_with_equal_probability(size: int) -> None:
    """Algorithm R: after n samples each is held with probability capacity / n, however they came in batches."""
    capacity, offered, lives = 6, 60, 1500
    generator, counts = seeded(), torch.zeros(offered)
    for _ in range(lives):
        buffer = ReservoirBuffer(capacity, generator=generator)
        for at in range(0, offered, size):
            buffer.add(*numbered([0] * min(size, offered - at), start=at), task=0)
        assert len(buffer) == capacity
        counts[held(buffer)] += 1
    p = capacity / offered
    assert ((counts / lives - p).abs() < 4.5 * (p * (1 - p) / lives) ** 0.5).all()


def test_a_ring_keeps_the_latest_of_each_task() -> None:
    buffer = RingBuffer(3)
    for start in (0, 2, 4):
        buffer.add(*numbered([0, 0], start=start), task=0)
    buffer.add(*numbered([1] * 5, start=10))
    assert held(buffer) == [3, 4, 5, 12, 13, 14]
    everything = RingBuffer(None)
    everything.add(*numbered([0] * 50))
    assert len(everything) == 50


def test_a_balanced_memory_makes_room_for_new_classes() -> None:
    buffer = ClassBalancedBuffer(12, generator=seeded())
    sizes = []
    for label in range(4):
        buffer.add(*numbered([label] * 30, start=30 * label))
        sizes.append(torch.bincount(buffer.draw(12).targets).tolist())
    assert sizes == [[12], [6, 6], [4, 4, 4], [3, 3, 3, 3]]


def test_a_balanced_memory_gives_the_room_of_small_classes_to_others() -> None:
    buffer = ClassBalancedBuffer(10, generator=seeded())
    buffer.add(*numbered([0] * 2 + [1] * 30 + [2] * 30))
    assert torch.bincount(buffer.draw(10).targets).tolist() == [2, 4, 4]


def test_a_balanced_memory_of_a_class_is_a_uniform_choice() -> None:
    generator, counts, lives = seeded(), torch.zeros(40), 1200
    for _ in range(lives):
        buffer = ClassBalancedBuffer(8, generator=generator)
        for start in range(0, 40, 10):
            buffer.add(*numbered([0, 1] * 5, start=start), task=0)
        counts[held(buffer)] += 1
    p = 8 / 40
    assert ((counts / lives - p).abs() < 4.5 * (p * (1 - p) / lives) ** 0.5).all()


def test_draws_are_without_replacement_until_all_are_drawn() -> None:
    buffer = PerClassBuffer(4, generator=seeded())
    buffer.add(torch.arange(8)[:, None], torch.arange(8) % 2, None)
    for _ in range(5):
        assert len(buffer.draw(6).inputs.unique()) == 6
    counts = torch.bincount(buffer.draw(20).inputs[:, 0])
    assert sorted(counts.tolist()) == [2] * 4 + [3] * 4


def test_draws_by_task_follow_the_weights_not_the_sizes() -> None:
    buffer = RingBuffer(None, generator=seeded())
    for number, size in enumerate((5, 50, 20)):
        buffer.add(torch.full((size, 1), number), torch.zeros(size).long())
    drawn = buffer.draw_by_task([1.0, 2.0, 5.0], 16000).inputs[:, 0]
    share = torch.bincount(drawn) / 16000
    torch.testing.assert_close(share, torch.tensor([0.125, 0.25, 0.625]), rtol=0, atol=0.015)
    assert (buffer.draw_by_task([0, 0, 1], 30).inputs == 2).all()


def test_tasks_that_nothing_is_left_of_are_passed_over() -> None:
    buffer = ReservoirBuffer(1, generator=seeded())
    for number in range(6):
        buffer.add(torch.full((1, 1), number), torch.zeros(1).long())
    left = int(buffer.draw(1).inputs)
    assert (buffer.draw_by_task([1.0] * 6, 20).inputs == left).all()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        PerClassBuffer(1).draw(1)
    for kind, name in (
        (PerClassBuffer, "per_class"), (ReservoirBuffer, "capacity"), (RingBuffer, "per_task"),
        (ClassBalancedBuffer, "capacity"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"{name}: got 0"):
            kind(0)
    buffer = RingBuffer(3)
    with pytest.raises(ShapeError, match="2 inputs and 3 targets"):
        buffer.add(torch.zeros(2, 1), torch.zeros(3))
    with pytest.raises(ConfigError, match="task 4 of 0"):
        buffer.add(torch.zeros(2, 1), torch.zeros(2), task=4)
    buffer.add(torch.zeros(2, 1), torch.zeros(2).long())
    with pytest.raises(ConfigError, match="2 weights for 1 tasks"):
        buffer.draw_by_task([1, 1], 3)
    with pytest.raises(ConfigError, match="no task of positive weight"):
        buffer.draw_by_task([0], 3)
    with pytest.raises(ConfigError, match="must define choose"):
        ReplayBuffer().add(torch.zeros(2, 1), torch.zeros(2))
