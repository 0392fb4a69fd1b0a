from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from neuropil.data import gather
from neuropil.editing import (
    BadNetPatch,
    InterclassConfusion,
    Manipulation,
    corrective_accuracy,
    finetuned,
    retrained,
    unlearning_benchmark,
)
from neuropil.errors import ConfigError, DataError, ShapeError
from tests.editing.forgetting import generator

SIDE, KINDS = 6, 4


def images(count: int = 200, seed: int = 0) -> TensorDataset:
    """A bright row or column tells the class; the lower right corner stays dark."""
    labels = torch.arange(count) % KINDS
    x = 0.2 * torch.rand(count, 1, SIDE, SIDE, generator=generator(seed))
    for label in range(KINDS):
        rows = labels == label
        if label < 2:
            x[rows, :, label] += 1
        else:
            x[rows, :, :, label - 2] += 1
    return TensorDataset(x, labels)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 32), nn.ReLU(), nn.Linear(32, KINDS))


def source(manipulation: Manipulation) -> Any:
    return lambda seed: manipulation.manipulate(images(), generator(seed))


def benchmark() -> partial[Any]:
    patch = BadNetPatch(0.1, size=2)
    train = patch.manipulate(images(), generator())
    methods = {"none": keep, "finetune": lambda m, f, r: finetuned(m, r, generator=generator())}
    return partial(unlearning_benchmark, net(), train, images(80, 1), patch, methods, gammas=(0.2, 1.0))


def keep(model: nn.Module, forget: Dataset[Any], retain: Dataset[Any]) -> nn.Module:
    return model


PARTS = [
    ("source", partial(source, BadNetPatch(0.1, size=2))),
    ("source", partial(source, InterclassConfusion((0, 2), 0.3))),
    ("analysis", benchmark),
]


def test_the_patch_stands_in_the_corner_of_the_chosen_and_nowhere_else() -> None:
    data = images()
    poisoned = BadNetPatch(0.1, size=2, label=3, value=5.0).manipulate(data, generator())
    x, y = gather(poisoned, range(len(poisoned)))
    old, labels = data.tensors
    chosen = poisoned.manipulated
    assert int(chosen.sum()) == 20
    assert bool((x[chosen][..., -2:, -2:] == 5).all()) and torch.equal(x[~chosen], old[~chosen])
    assert torch.equal(x[chosen][..., :-2, :], old[chosen][..., :-2, :])
    assert bool((y[chosen] == 3).all()) and torch.equal(y[~chosen], labels[~chosen])
    assert torch.equal(poisoned.true_targets, labels) and float(old.max()) < 1.5


def test_affected_images_have_the_patch_and_their_true_label_and_miss_the_target_class() -> None:
    affected = BadNetPatch(0.1, size=1, label=2, value=9.0).affected(images())
    x, y = gather(affected, range(len(affected)))
    assert 2 not in y and len(y) == 150 and bool((x[..., -1, -1] == 9).all())


def test_confusion_swaps_the_share_of_each_class_and_no_other() -> None:
    data = images()
    confused = InterclassConfusion((1, 3), 0.4).manipulate(data, generator())
    moved = confused.labels() != data.tensors[1]
    assert torch.equal(moved, confused.manipulated) and int(moved.sum()) == 40
    assert set(confused.labels()[moved & (data.tensors[1] == 1)].tolist()) == {3}
    assert set(confused.labels()[moved & (data.tensors[1] == 3)].tolist()) == {1}
    assert set(gather(InterclassConfusion((1, 3)).affected(data), range(100))[1].tolist()) == {1, 3}


def test_more_that_is_found_contains_less_and_all_of_it_is_manipulated() -> None:
    train = BadNetPatch(0.2, size=2).manipulate(images(), generator())
    few, many, all_of_it = (train.identified(share, generator(4)) for share in (0.1, 0.5, 1.0))
    assert len(few) == 4 and len(many) == 20 and torch.equal(all_of_it, train.manipulated.nonzero()[:, 0])
    assert set(few.tolist()) < set(many.tolist()) < set(all_of_it.tolist())


def test_a_backdoor_is_learned_and_gone_after_retraining_without_all_of_the_poison() -> None:
    patch = BadNetPatch(0.2, size=2, label=0, value=3.0)
    train = patch.manipulate(images(400), generator())
    model = finetuned(net(), train, epochs=30, generator=generator())
    methods = {"retrain": lambda m, f, r: retrained(m, r, epochs=30, generator=generator()), "none": keep}
    found = unlearning_benchmark(model, train, images(80, 1), patch, methods, gammas=(0.1, 1.0))
    assert found.corrected_before < 0.1 and found.retained_before > 0.95
    assert found.corrected["none"] == [found.corrected_before] * 2
    assert found.corrected["retrain"][0] < 0.2 and found.corrected["retrain"][1] > 0.7
    assert min(found.retained["retrain"]) > 0.95


def test_methods_are_handed_what_was_found_and_all_the_rest() -> None:
    patch = BadNetPatch(0.1, size=2)
    train = patch.manipulate(images(), generator())
    sizes = []

    def look(model: nn.Module, forget: Any, retain: Any) -> nn.Module:
        sizes.append((len(forget), len(retain)))
        assert bool((forget.labels() == 0).all())
        return model

    unlearning_benchmark(net(), train, images(40, 1), patch, {"look": look}, gammas=(0.25, 1.0))
    assert sizes == [(5, 195), (20, 180)]


def test_corrective_accuracy_is_judged_against_the_truth() -> None:
    class Always(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.one_hot(torch.full((len(x),), 1), KINDS).float()

    assert corrective_accuracy(Always(), BadNetPatch(label=1), images()) == 0.0
    assert corrective_accuracy(Always(), BadNetPatch(label=0), images()) == pytest.approx(1 / 3)
    assert corrective_accuracy(Always(), InterclassConfusion((1, 2)), images()) == 0.5


def test_what_is_refused() -> None:
    data = images()
    with pytest.raises(ConfigError, match="share is 0 of 200"):
        BadNetPatch(0).manipulate(data, generator())
    with pytest.raises(ConfigError, match="of 200 samples"):
        BadNetPatch(1e-4).manipulate(data, generator())
    with pytest.raises(ShapeError, match="at least 9 x 9"):
        BadNetPatch(0.1, size=9).manipulate(data, generator())
    with pytest.raises(ConfigError, match="two classes"):
        InterclassConfusion((1, 1), 0.4).manipulate(data, generator())
    with pytest.raises(ConfigError, match="of 0 samples of class 7"):
        InterclassConfusion((1, 7), 0.4).manipulate(Subset(data, range(100)), generator())
    train = BadNetPatch(0.1, size=2).manipulate(data, generator())
    with pytest.raises(ConfigError, match="share is 2"):
        train.identified(2.0, generator())
    with pytest.raises(ConfigError, match="at least one method"):
        unlearning_benchmark(net(), train, data, BadNetPatch(), {})
    train.manipulated[:] = False
    with pytest.raises(DataError, match="no sample is manipulated"):
        unlearning_benchmark(net(), train, data, BadNetPatch(), {"none": keep})
