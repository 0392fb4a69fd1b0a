from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from neuropil import data
from neuropil.errors import ConfigError
from neuropil.training import Plugin, Trainer


def make_drifting(kind, **options):
    def factory(seed):
        return data.by_name(f"drifting-{kind}", 3, seed=seed, train_samples=40, test_samples=20, **options)

    return factory


PARTS = [
    ("source", partial(make_drifting, "rotated-mnist")),
    ("source", partial(make_drifting, "split-mnist", scenario="class")),
    ("source", partial(make_drifting, "concept-shift-mnist", swaps_per_task=2)),
]


def numbered(tasks: int = 4, size: int = 300) -> data.Stream:
    """Task k's inputs are k, its targets the sample's number."""
    made = []
    for k in range(tasks):
        part = TensorDataset(torch.full((size, 1), float(k)), torch.arange(size))
        made.append((part, part, part))
    return data.stream(made)


def met(stream: data.Stream) -> torch.Tensor:
    return data.gather(stream[0].train, range(len(stream[0].train)))[0].flatten().long()


@given(tasks=st.integers(1, 6), time=st.floats(0, 1), width=st.floats(0, 3))
def test_shares_add_up_to_one(tasks, time, width):
    shares = data.mixture(tasks, time, width=width)
    assert shares.shape == (tasks,) and shares.min() >= 0 and float(shares.sum()) == pytest.approx(1)


def test_shares_are_bells():
    shares = data.mixture(4, 0.5 / 4, width=0.7)
    assert float(shares[1] / shares[0]) == pytest.approx(2.718281828 ** (-1 / (2 * 0.49)))
    assert torch.allclose(data.mixture(4, 0.3), data.mixture(4, 0.7).flip(0))


def test_samples_come_in_the_shares_of_their_time():
    size, width = 2000, 0.4
    owners = met(data.drifting(numbered(3, size), width=width, samples=3000, seed=1))
    for start in range(0, 3000, 300):
        wanted = torch.stack([data.mixture(3, (start + i) / 3000, width=width) for i in range(300)]).mean(0)
        seen = torch.bincount(owners[start : start + 300], minlength=3) / 300
        assert (seen - wanted).abs().max() < 0.11  # four standard errors of a share


def test_without_width_one_task_follows_another():
    owners = met(data.drifting(numbered(3, 50), width=0))
    assert owners.tolist() == [0] * 50 + [1] * 50 + [2] * 50


@pytest.mark.parametrize("width", [0, 0.3, 2.0])
def test_nothing_is_met_twice(width):
    whole = data.drifting(numbered(4, 60), width=width)
    indices = whole[0].train.indices
    assert sorted(indices) == list(range(240))


def test_a_task_with_an_order_keeps_it():
    shifting = data.concept_shift("mnist", 3, train_samples=50, validation_samples=0, test_samples=10)
    whole = data.drifting(shifting, width=0)[0].train
    passes = [task.train[i] for task in shifting for i in range(50)]
    assert all(torch.equal(whole[i][0], x) and whole[i][1] == y for i, (x, y) in enumerate(passes))


def test_it_is_learned_in_its_order_without_boundaries():
    class Watch(Plugin):
        def __init__(self) -> None:
            self.tasks, self.seen = 0, []

        def before_task(self, task: data.Task) -> None:
            self.tasks += 1

        def before_batch(self, batch: data.Batch) -> data.Batch:
            self.seen += batch.inputs.flatten().tolist()
            return data.Batch(batch.inputs, batch.targets % 2, batch.classes)

    whole = data.drifting(numbered(3, 40), width=0.3)
    net, watch = nn.Linear(1, 40), Watch()
    Trainer(
        net, torch.optim.SGD(net.parameters(), lr=0.01), plugins=[watch], batch_size=7, progress=False
    ).fit(whole)
    assert watch.tasks == 1 and watch.seen == met(whole).tolist()


def test_what_cannot_be_is_refused():
    stream = numbered(2, 10)
    with pytest.raises(ConfigError, match="the stream has 20"):
        data.drifting(stream, samples=21)
    with pytest.raises(ConfigError, match="width"):
        data.drifting(stream, width=-1)
    loader = DataLoader(stream[0].train)
    with pytest.raises(ConfigError, match="DataLoader"):
        data.drifting(data.stream([(loader, stream[0].test, stream[0].test)], n_classes=10))
