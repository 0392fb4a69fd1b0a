from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from neuropil.continual import EWC, MaskedSoftmax
from neuropil.data.task import Batch, Stream
from neuropil.errors import ConfigError
from neuropil.nn import CosineLinear
from neuropil.training import Backprop, Trainer, restrict
from tests.continual.springs import seeded
from tests.training.worlds import CLASSES, FEATURES, mlp, sgd, task


def masked() -> Any:
    return lambda model: MaskedSoftmax()


PARTS = [("plugin", masked)]


def incremental() -> Stream:
    """Two classes a task, and the answer is looked for among all."""
    tasks = (task(0, classes=(0, 2)), task(1, classes=(1, 3)))
    return Stream(tuple(replace(now, classes=None) for now in tasks), n_classes=CLASSES)


def test_the_loss_compares_the_tasks_own_classes() -> None:
    plugin, x, y = MaskedSoftmax(), torch.randn(6, CLASSES), torch.tensor([1, 3, 1, 1, 3, 3])
    plugin.before_task(incremental()[1])
    batch = plugin.before_batch(Batch(torch.zeros(6, FEATURES), y))
    assert batch.classes == (1, 3)
    found = nn.functional.cross_entropy(restrict(x, batch.classes), y)
    log_p = x[:, [1, 3]] - x[:, [1, 3]].logsumexp(1, keepdim=True)
    expected = -log_p[torch.arange(6), (y == 3).long()].mean()
    torch.testing.assert_close(found, expected)


def test_a_task_that_names_its_classes_passes_unchanged() -> None:
    plugin = MaskedSoftmax()
    plugin.before_task(task(0, classes=(0, 1)))
    batch = Batch(torch.zeros(2, FEATURES), torch.tensor([0, 1]), (0, 1))
    assert plugin.before_batch(batch) is batch


@pytest.mark.parametrize("head", [nn.Linear, CosineLinear])
def test_rows_of_earlier_classes_stay_as_they_were_learned(head: type[nn.Module]) -> None:
    first, second = incremental()
    rows = []
    for mask in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), head(8, CLASSES))
        learner = Backprop(
            model, torch.optim.Adam(model.parameters(), 0.01), plugins=[MaskedSoftmax()] * mask
        )
        Trainer(learner=learner, progress=False).fit([first])
        before = model[2].weight.detach().clone()
        Trainer(learner=learner, progress=False).fit([second])
        rows.append((model[2].weight - before).abs().sum(1)[[0, 2]])
    assert not rows[0].any() and rows[1].all()


def test_importance_is_estimated_under_the_same_mask() -> None:
    first, _ = incremental()
    model, plugin = mlp(), MaskedSoftmax()
    plugin.before_task(first)
    ewc = EWC(model, samples=20, generator=seeded(), predict=plugin.predict(model))
    ewc.after_task(first)
    stiffness = ewc.state_dict()["stiffness"]["leave.bias"]
    assert stiffness[[0, 2]].all() and not stiffness[[1, 3]].any()


def test_it_keeps_what_a_full_softmax_unlearns_at_once() -> None:
    """Without a penalty too: with the mask the classes of the first task are still answered."""
    kept = []
    for mask in (True, False):
        model = mlp()
        plugins = [MaskedSoftmax()] * mask
        trainer = Trainer(model, sgd(model, 0.1), plugins=plugins, epochs=15, batch_size=8, progress=False)
        kept.append(trainer.fit(incremental()).accuracy_matrix[-1][0])
    assert kept[0] > kept[1] + 0.3


def test_a_mask_before_any_task_is_refused() -> None:
    model = mlp()
    with pytest.raises(ConfigError, match="no task has begun"):
        MaskedSoftmax().predict(model)(torch.zeros(1, FEATURES))
