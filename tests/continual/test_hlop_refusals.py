"""What HLOP refuses, each in one line before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from neuropil.continual import HLOP
from neuropil.errors import ConfigError, IncompatibleError, SubspaceError, UnknownNameError
from neuropil.training import Trainer
from tests.training.worlds import mlp, sgd, stream


def refuse(optimizer: torch.optim.Optimizer, model: nn.Module, match: str) -> None:
    with pytest.raises(IncompatibleError, match=match) as caught:
        Trainer(model, optimizer, plugins=[HLOP(model, tasks=3)], progress=False).fit(stream())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_scaling_by_coordinate(kind: Any) -> None:
    model = mlp()
    refuse(kind(model.parameters(), lr=0.1), model, f"HLOP with {kind.__name__}")


@pytest.mark.parametrize("setting", ["momentum", "weight_decay"])
def test_steps_that_are_carried_on(setting: str) -> None:
    model = mlp()
    refuse(torch.optim.SGD(model.parameters(), lr=0.1, **{setting: 0.1}), model, setting)


def test_layers_with_other_gradients() -> None:
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(IncompatibleError, match=r"'0'.*grouped"):
        HLOP(grouped)
    worn = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 2))
    with pytest.raises(IncompatibleError, match=r"'0'.*parametrized"):
        HLOP(worn)
    assert set(HLOP(worn, exclude=["0"]).bases) == {"1"}
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(IncompatibleError, match=r"'1'.*shares its weight with layer '0'"):
        HLOP(tied)


def test_another_model() -> None:
    model = mlp()
    with pytest.raises(IncompatibleError, match="no parameter of the model that is trained"):
        Trainer(model, sgd(model), plugins=[HLOP(mlp())], progress=False).fit(stream())


def test_a_model_without_weights() -> None:
    with pytest.raises(ConfigError, match="no linear or convolutional layer"):
        HLOP(nn.Sequential(nn.ReLU()))


def test_names_that_are_not_there() -> None:
    for settings in ({"exclude": ["leaf"]}, {"sizes": {"leaf": (1,)}}, {"lr": {"leaf": 0.1}}):
        with pytest.raises(UnknownNameError, match="did you mean 'leave'"):
            HLOP(mlp(), **settings)


def test_more_than_may_be_protected() -> None:
    with pytest.raises(SubspaceError, match="at most 10 leave room"):
        HLOP(mlp(), sizes={"enter": (6, 5)})
    HLOP(mlp(), sizes={"enter": (6, 4)})
    with pytest.raises(SubspaceError, match="fill"):
        HLOP(mlp(), fill=0.86)
    with pytest.raises(SubspaceError, match="negative"):
        HLOP(mlp(), sizes={"enter": (6, -1)})


def test_more_tasks_than_the_schedule_has() -> None:
    model = mlp()
    judge = Trainer(model, sgd(model), plugins=[HLOP(model, tasks=2)], progress=False)
    with pytest.raises(SubspaceError, match="task 3 of a schedule made for 2 tasks"):
        judge.fit(stream(3))
