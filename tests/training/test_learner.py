from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from neuropil.data.task import Batch
from neuropil.errors import LabelError, ShapeError
from neuropil.nn import LIF, RateReadout, Sequential, TracedLinear
from neuropil.training import OTTT, Backprop, Learner, restrict
from neuropil.training.allowed import class_mask
from tests.training.worlds import CLASSES, FEATURES, MODELS, mlp, sgd, task


def batch() -> Batch:
    return Batch(*task().train.tensors)


def backprop(network: object = mlp, momentum: float = 0.9) -> tuple[Learner, Batch]:
    model = network()
    return Backprop(model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=momentum)), batch()


def online_network() -> Sequential:
    torch.manual_seed(0)
    return Sequential(
        nn.Linear(FEATURES, 16),
        LIF(temporal_gradient=False),
        TracedLinear(16, CLASSES, decay=0.5),
        time_steps=4,
    )


def ottt() -> tuple[Learner, Batch]:
    model = online_network()
    return OTTT(model, sgd(model, 0.1)), batch()


PARTS = [*(("learner", partial(backprop, network)) for network in MODELS), ("learner", ottt)]


def test_backprop_is_the_plain_loop() -> None:
    (learner, pairs), model = backprop(momentum=0.0), mlp()
    optimizer = sgd(model)
    for _ in range(5):
        value = learner.update(pairs)["loss"]
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(pairs.inputs), pairs.targets)
        loss.backward()
        optimizer.step()
        assert value == loss.item()
    for a, b in zip(learner.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_ottt_adds_up_the_gradient_of_a_loss_at_every_step() -> None:
    learner, pairs = ottt()
    currents = learner.model(pairs.inputs)  # [time, batch, classes]
    by_steps = sum(functional.cross_entropy(step, pairs.targets) for step in currents) / len(currents)
    expected = torch.autograd.grad(by_steps, list(learner.model.parameters()))
    assert learner.update(pairs)["loss"] == pytest.approx(by_steps.item())
    for parameter, gradient in zip(learner.model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_ottt_refuses_a_model_without_time_in_its_answer() -> None:
    model = Sequential(nn.Linear(FEATURES, CLASSES), LIF(), RateReadout(), time_steps=3)
    with pytest.raises(ShapeError, match="remove its readout"):
        OTTT(model, sgd(model)).update(batch())


def test_restrict_takes_classes_for_all_or_for_each() -> None:
    logits = torch.arange(6.0).reshape(2, 3)
    inf = float("inf")
    assert restrict(logits, None) is logits
    assert restrict(logits, (0, 2)).tolist() == [[0, -inf, 2], [3, -inf, 5]]
    mask = class_mask([(0,), (0, 1)], outputs=2)
    assert mask.tolist() == [[True, False], [True, True]]
    assert restrict(logits, mask).tolist() == [[0, -inf, -inf], [3, 4, -inf]]
    in_time = restrict(logits.expand(4, 2, 3), mask)
    assert torch.equal(in_time[3], restrict(logits, mask))
    with pytest.raises(LabelError, match="3 outputs"):
        restrict(logits, (0, 3))


@pytest.mark.parametrize("method", ["update", "predict"])
def test_a_learner_without_its_methods_says_so(method: str) -> None:
    with pytest.raises(TypeError, match=method):
        getattr(Learner(), method)(None)
