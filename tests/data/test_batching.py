from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from neuropil import data
from neuropil.data.transforms import Normalize
from neuropil.errors import ConfigError, DataError, EmptyTaskError, LabelError, NonFiniteError


class Plain(Dataset):
    """A dataset as users write them: one Python pair at a time."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return torch.tensor([float(index), 1.0]), index


def arrays(n, offset=0):
    values = torch.arange(offset, offset + n)
    return data.Arrays(torch.stack([values.float(), torch.ones(n)], 1), values)


KINDS = {
    "arrays": arrays,
    "tensors": lambda n: TensorDataset(*(lambda a: (a.inputs, a.targets))(arrays(n))),
    "subset": lambda n: Subset(arrays(2 * n), range(n)),
    "concatenated": lambda n: (
        ConcatDataset([arrays(n - n // 3), Subset(arrays(n), range(n - n // 3, n))]) if n >= 3 else arrays(n)
    ),
    "plain": Plain,
    "subset of plain": lambda n: Subset(Plain(n), list(range(n))),
}


@pytest.mark.parametrize("kind", KINDS)
@given(n=st.integers(1, 40), size=st.integers(1, 50), seed=st.integers(0, 99), epoch=st.integers(0, 9))
def test_an_epoch_holds_every_sample_once_whatever_holds_them(kind, n, size, seed, epoch):
    samples = KINDS[kind](n)
    drawn = list(data.batches(samples, size, seed=seed, epoch=epoch))
    targets = torch.cat([batch.targets for batch in drawn])
    assert targets.sort().values.tolist() == list(range(n))
    assert torch.equal(
        torch.cat([batch.inputs for batch in drawn])[:, 0], targets.float()
    )  # pairs stay together
    assert len(drawn) == data.n_batches(samples, size)
    assert [len(batch.inputs) for batch in drawn[:-1]] == [size] * (len(drawn) - 1)
    reference = torch.cat([batch.targets for batch in data.batches(arrays(n), size, seed=seed, epoch=epoch)])
    assert torch.equal(targets, reference)  # the order belongs to the seed, not to the kind of dataset


@given(n=st.integers(1, 40), size=st.integers(1, 12), start=st.integers(0, 12))
def test_resuming_gives_the_remaining_batches(n, size, start):
    whole = [batch.targets.tolist() for batch in data.batches(arrays(n), size, seed=3, epoch=2)]
    rest = [batch.targets.tolist() for batch in data.batches(arrays(n), size, seed=3, epoch=2, start=start)]
    assert rest == whole[start:]


def test_resuming_does_not_draw_the_batches_before():
    class Counting(Plain):
        drawn = 0

        def __getitem__(self, index):
            Counting.drawn += 1
            return super().__getitem__(index)

    list(data.batches(Counting(20), 4, start=3))
    assert Counting.drawn == 8


def test_order_differs_between_seeds_and_epochs_and_stays_without_shuffling():
    def order(**arguments):
        return [int(t) for batch in data.batches(arrays(50), 8, **arguments) for t in batch.targets]

    orders = [order(seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(o) for o in orders}) == 4
    assert order(shuffle=False) == list(range(50))


def test_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    list(data.batches(data.permuted("mnist", 2, train_samples=50)[1].train, 16))
    assert torch.equal(before, torch.get_rng_state())


def test_a_loader_is_iterated_as_it_is():
    loader = DataLoader(Plain(10), batch_size=4)
    assert [batch.targets.tolist() for batch in data.batches(loader, 99, start=1)] == [[4, 5, 6, 7], [8, 9]]
    assert data.n_batches(loader, 99) == 3


def test_a_loader_over_arrays_gives_the_same_items():
    samples = data.split("mnist", train_samples=30)[0].train
    (inputs, targets), (other, other_targets) = (
        next(iter(DataLoader(samples, batch_size=30))),
        samples.gather(range(30)),
    )
    assert torch.equal(inputs, other) and torch.equal(targets, other_targets)
    assert torch.equal(samples[7][0], other[7])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("row", [0, 6])
def test_a_value_that_is_not_finite_names_batch_and_input(bad, row):
    inputs = torch.zeros(8, 3)
    inputs[row, 2] = bad
    with pytest.raises(NonFiniteError, match=f"batch {row // 4}: input {row % 4} "):
        list(data.batches(TensorDataset(inputs, torch.zeros(8).long()), 4, shuffle=False))


def test_large_but_finite_values_are_let_through():
    inputs = torch.full((4, 2), 3e38)  # their sum is infinite
    assert len(list(data.batches(TensorDataset(inputs, torch.zeros(4).long()), 4))) == 1


@pytest.mark.parametrize(
    ("targets", "arguments", "message"),
    [
        (torch.tensor([0, 1, 3]), {"n_classes": 3}, "target 3 at 2; expected classes from 0 to 2"),
        (torch.tensor([0, -1, 1]), {"n_classes": 3}, "target -1 at 1"),
        (torch.tensor([4, 5, 1]), {"classes": (4, 5)}, r"target 1 at 2; expected classes in \[4, 5\]"),
        (torch.tensor([0.0, 1.0, 1.0]), {"n_classes": 3}, "expected integers"),
        (torch.zeros(3, 2).long(), {"n_classes": 3}, "expected integers"),
    ],
)
def test_labels_out_of_range_are_refused(targets, arguments, message):
    samples = TensorDataset(torch.zeros(3, 2), targets)
    with pytest.raises(LabelError, match=message):
        list(data.batches(samples, 3, shuffle=False, **arguments))


def test_classes_are_handed_on_and_numbers_may_be_learned_without_classes():
    samples = TensorDataset(torch.zeros(3, 2), torch.tensor([4, 5, 4]))
    assert next(data.batches(samples, 3, classes=(4, 5))).classes == (4, 5)
    regression = TensorDataset(torch.zeros(3, 2), torch.rand(3, 2))
    assert next(data.batches(regression, 3)).targets.shape == (3, 2)


@pytest.mark.parametrize("samples", [arrays(0), DataLoader(Plain(0))])
def test_nothing_to_learn_from_is_an_error(samples):
    with pytest.raises(EmptyTaskError):
        list(data.batches(samples, 4))


def test_what_cannot_be_batched_is_told_in_one_line():
    class Endless(IterableDataset):
        def __iter__(self):
            return iter([])

    class Dictionaries(Plain):
        def __getitem__(self, index):
            return {"image": torch.zeros(2), "label": index}

    with pytest.raises(ConfigError, match="wrap it in a DataLoader"):
        list(data.batches(Endless(), 2))
    with pytest.raises(DataError, match="a dict of image, label"):
        list(data.batches(Dictionaries(4), 2))
    with pytest.raises(DataError, match="3 parts"):
        list(data.batches(TensorDataset(torch.zeros(2), torch.zeros(2), torch.zeros(2)), 2))
    for arguments in ({"batch_size": 0}, {"start": -1}, {"seed": -1}, {"epoch": -1}):
        with pytest.raises(ConfigError, match="at least"):
            list(data.batches(arrays(4), **{"batch_size": 2, **arguments}))


def test_arrays_share_their_memory_and_check_their_lengths():
    samples = arrays(6)
    part = samples.subset([4, 1]).subset([1])
    assert part.inputs is samples.inputs and part.labels().tolist() == [1] and len(part) == 1
    with pytest.raises(DataError, match="3 inputs but 2 targets"):
        data.Arrays(torch.zeros(3, 1), [0, 1])
    with pytest.raises(DataError, match="outside"):
        data.Arrays(torch.zeros(3, 1), [0, 1, 1], indices=torch.tensor([3]))


def test_arrays_scale_bytes_and_keep_other_types():
    pixels = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    assert torch.allclose(data.Arrays(pixels, [0])[0][0], torch.tensor([0.0, 0.2, 1.0]))
    assert torch.allclose(data.Arrays(pixels, [0], Normalize(0.2, 0.4))[0][0], torch.tensor([-0.5, 0.0, 2.0]))
    assert data.Arrays(torch.zeros(1, 2, dtype=torch.float64), [0])[0][0].dtype == torch.float64
    assert data.Arrays(torch.zeros(1, 2, dtype=torch.int64), [0])[0][0].dtype == torch.int64
