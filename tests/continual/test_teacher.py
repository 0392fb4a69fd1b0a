"""A remembered network answers as `torch.func.functional_call` with its weights, and leaves the model as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from neuropil.continual.teacher import Teacher
from neuropil.training.evaluating import evaluating


class Tied(nn.Module):
    """One layer under two names, and a weight that is also another's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.again = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.second(torch.tanh(self.first(x))))


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def parametrized() -> nn.Module:
    layer = nn.Linear(6, 3)
    parametrize.register_parametrization(layer, "weight", Halved())
    return layer


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3, bias=False))


@pytest.mark.parametrize("make", [Tied, parametrized, normalised])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_answers_as_the_model_did(make: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = make().to(dtype), torch.randn(16, 6, dtype=dtype)
    model(x)  # moves statistics
    model.train()
    with evaluating(model):
        before = model(x).detach()
    teacher = Teacher(model)
    teacher.remember()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    model(2 * x)
    kept = {name: value for name, value in (*model.named_parameters(), *model.named_buffers())}
    values = {name: value.detach().clone() for name, value in kept.items()}
    answer = teacher(x)
    assert torch.equal(answer, before) and not answer.requires_grad
    after = dict((*model.named_parameters(), *model.named_buffers()))
    assert all(after[name] is value and torch.equal(value, values[name]) for name, value in kept.items())
    assert all(module.training for module in model.modules())
    with torch.no_grad(), evaluating(model):
        assert torch.equal(functional_call(model, teacher.state_dict(), (x,)), before)


def test_the_model_is_itself_again_after_an_error() -> None:
    class Failing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no")

    model = Failing(2, 2)
    weight = model.weight
    teacher = Teacher(model)
    teacher.remember()
    with pytest.raises(RuntimeError, match="no"):
        teacher(torch.zeros(1, 2))
    assert model.weight is weight and model.training


def test_a_module_with_a_way_of_its_own_keeps_it() -> None:
    class Frozen(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Frozen:
            return super().train(False)

    class Counting(nn.Linear):
        asked = 0

        def __setattr__(self, name: str, value: Any) -> None:
            if name == "training":
                Counting.asked += 1
            super().__setattr__(name, value)

    model = nn.Sequential(nn.Linear(2, 2), Frozen(2), nn.Dropout())
    model.train()
    model[2].training = False
    modes = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == modes == [True, True, False, False]
    layer = Counting(2, 2)
    before = Counting.asked
    with evaluating(layer):
        assert not layer.training
    assert layer.training and Counting.asked == before + 2
