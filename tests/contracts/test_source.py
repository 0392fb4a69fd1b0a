"""What every source keeps: the same items from the same seed, splits that never overlap, honest labels."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from neuropil import data

from .parts import parts

SPLITS = ("train", "validation", "test")


def pieces(source: data.Stream | Dataset) -> list[tuple[str, Dataset]]:
    """Everything in a source that can be drawn from, with a name."""
    if not isinstance(source, data.Stream):
        return [("samples", source)]
    return [(f"{task.name} {split}", getattr(task, split)) for task in source for split in SPLITS]


def content(source: data.Stream | Dataset) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [
        (batch.inputs, batch.targets)
        for _, samples in pieces(source)
        if len(samples)
        for batch in data.batches(samples, 64, seed=1)
    ]


def origins(samples: Dataset) -> list[tuple[int, int]]:
    """Where each sample lies: the array in memory, and its row."""
    if isinstance(samples, data.Arrays):
        return [(samples.inputs.data_ptr(), int(row)) for row in samples.indices]
    if isinstance(samples, Subset):
        inside = origins(samples.dataset)
        return [inside[index] for index in samples.indices]
    assert isinstance(samples, ConcatDataset), type(samples)
    return [origin for part in samples.datasets for origin in origins(part)]


def same(a: list[tuple[torch.Tensor, torch.Tensor]], b: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    return all(torch.equal(x, y) and torch.equal(s, t) for (x, s), (y, t) in zip(a, b, strict=True))


@pytest.mark.parametrize("make", parts("source"))
def test_same_seed_same_items_another_seed_others(make) -> None:
    factory = make()
    first = content(factory(3))
    assert same(first, content(factory(3)))
    assert not same(first, content(factory(4)))


@pytest.mark.parametrize("make", parts("source"))
def test_random_state_of_the_process_is_neither_read_nor_moved(make) -> None:
    torch.manual_seed(0)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = content(make()(3))
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(before_numpy, np.random.get_state()[1])  # noqa: NPY002
    torch.manual_seed(1)
    assert same(first, content(make()(3)))


@pytest.mark.parametrize("make", parts("source"))
def test_an_item_alone_is_the_item_in_its_batch(make) -> None:
    for _, samples in pieces(make()(3)):
        chosen = [0, len(samples) // 2, len(samples) - 1]
        inputs, targets = data.gather(samples, chosen)
        for row, index in enumerate(chosen):
            x, y = samples[index]
            assert torch.equal(torch.as_tensor(x), inputs[row]) and int(y) == int(targets[row])


@pytest.mark.parametrize("make", parts("source"))
def test_reading_resumes_at_any_batch(make) -> None:
    for _, samples in pieces(make()(3)):
        whole = list(data.batches(samples, 7, seed=2, epoch=1))
        rest = list(data.batches(samples, 7, seed=2, epoch=1, start=1))
        assert len(rest) == len(whole) - 1
        assert same([b[:2] for b in rest], [b[:2] for b in whole[1:]])


@pytest.mark.parametrize("make", parts("source"))
def test_splits_never_overlap(make) -> None:
    source = make()(3)
    if not isinstance(source, data.Stream):
        pytest.skip("one data set has no splits")
    for task in source:
        rows = [origins(getattr(task, split)) for split in SPLITS]
        assert [len(found) for found in rows] == [len(getattr(task, split)) for split in SPLITS]
        # the same image may be met again in the same split, seen in another way
        distinct = [set(found) for found in rows]
        assert sum(map(len, distinct)) == len(set().union(*distinct))


@pytest.mark.parametrize("make", parts("source"))
def test_items_are_finite_and_labels_are_answers_the_task_allows(make) -> None:
    source = make()(3)
    if not isinstance(source, data.Stream):
        pytest.skip("one data set declares no classes")
    assert source.n_classes > 0
    for task in source:
        for split in SPLITS:
            # The check at the boundary raises what is wrong.
            for _ in data.batches(getattr(task, split), 64, classes=task.classes, n_classes=source.n_classes):
                pass
        assert task.classes is None or set(task.classes) <= set(range(source.n_classes))


@pytest.mark.parametrize("make", parts("source"))
def test_it_can_be_sent_to_another_process(make) -> None:
    source = make()(3)
    assert same(content(source), content(pickle.loads(pickle.dumps(source))))  # noqa: S301


@pytest.mark.parametrize("make", parts("source"))
def test_checksum_follows_the_seed(make) -> None:
    source = make()(3)
    if not isinstance(source, data.Stream):
        pytest.skip("one data set has no checksum")
    assert source.checksum and source.checksum == make()(3).checksum != make()(4).checksum
