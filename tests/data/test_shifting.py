from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuropil import data
from neuropil.errors import ConfigError


def make_shifting(**options):
    def factory(seed):
        return data.concept_shift("mnist", seed=seed, train_samples=40, test_samples=20, **options)

    return factory


PARTS = [
    ("source", partial(make_shifting, tasks=3, swaps_per_task=1)),
    ("source", partial(make_shifting, tasks=2, swaps_per_task=3.5, flat=False)),
]


@given(classes=st.integers(2, 12), swaps=st.integers(0, 30), seed=st.integers(0, 1000))
def test_each_exchange_is_of_two_labels(classes, swaps, seed):
    table = data.label_swaps(classes, swaps, seed=seed)
    assert table.shape == (swaps + 1, classes)
    assert torch.equal(table.sort(1).values, torch.arange(classes).expand(swaps + 1, classes))
    assert ((table[1:] != table[:-1]).sum(1) == 2).all()
    assert torch.equal(table[: swaps // 2 + 1], data.label_swaps(classes, swaps // 2, seed=seed))


def true_labels(stream, part="train"):
    """Labels before any exchange, in the order in which samples are met."""
    images = data.load("mnist")
    for task in stream:
        samples = getattr(task, part)
        inner = samples.dataset if isinstance(samples, data.InOrder) else samples
        order = (
            torch.tensor(samples.indices) if isinstance(samples, data.InOrder) else torch.arange(len(samples))
        )
        labels = images.test_labels if part == "test" else images.train_labels
        yield labels[inner.indices[order]], torch.stack([samples[i][1] for i in range(len(samples))])


@pytest.mark.parametrize("rate", [0, 0.5, 1, 2.5, 10])
def test_labels_follow_the_table_through_time(rate):
    stream = data.concept_shift("mnist", 4, swaps_per_task=rate, seed=3, train_samples=60, test_samples=30)
    table = data.label_swaps(10, int(rate * 4), seed=3)
    for index, (true, given_) in enumerate(true_labels(stream)):
        after = [int(rate * (index + j / 60) + 1e-9) for j in range(60)]
        assert given_.tolist() == [int(table[k, y]) for k, y in zip(after, true.tolist(), strict=True)]
    for index, (true, given_) in enumerate(true_labels(stream, "test")):
        now = int(rate * (index + 59 / 60) + 1e-9)
        assert torch.equal(given_, table[now][true])


def test_without_exchanges_labels_are_the_true_ones():
    stream = data.concept_shift("mnist", 2, swaps_per_task=0, train_samples=50)
    for true, given_ in true_labels(stream):
        assert torch.equal(true, given_)


def test_each_pass_meets_every_image_in_an_order_of_its_own():
    stream = data.concept_shift("mnist", 3, train_samples=50)
    orders = [task.train.indices for task in stream]
    assert all(sorted(order) == list(range(50)) for order in orders) and orders[0] != orders[1]
    batch = next(data.batches(stream[1].train, 8, seed=5))  # whatever the seed
    assert batch.targets.tolist() == [int(stream[1].train[i][1]) for i in range(8)]


def test_images_are_shared_not_copied():
    stream = data.concept_shift("mnist", 3, train_samples=50)
    assert len({task.train.dataset.inputs.data_ptr() for task in stream}) == 1


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="swaps_per_task"):
        data.concept_shift("mnist", swaps_per_task=-1)
    with pytest.raises(ConfigError, match="at least 2"):
        data.label_swaps(1, 3)
