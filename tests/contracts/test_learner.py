"""What every learner keeps: it learns, answers, refuses what would spoil the model, and goes on from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from neuropil.data.task import Batch
from neuropil.errors import LabelError, NonFiniteError
from neuropil.training import Learner, LossContext, Plugin, read_checkpoint, save_checkpoint
from tests.contracts.parts import Make, parts
from tests.training.worlds import parameters, same, weights

every_learner = pytest.mark.parametrize("make", parts("learner"))


def fresh(make: Make, seed: int = 0) -> tuple[Learner, Any]:
    """A learner and what it learns from: a `Batch` of pairs, or a tensor of inputs alone."""
    torch.manual_seed(seed)
    return make()


def with_labels(make: Make) -> tuple[Learner, Batch]:
    learner, batch = fresh(make)
    if isinstance(batch, Tensor):
        pytest.skip("it learns from inputs alone")
    return learner, batch


def inputs_of(batch: Batch | Tensor) -> Tensor:
    return batch if isinstance(batch, Tensor) else batch.inputs


def with_inputs(batch: Any, inputs: Tensor) -> Any:
    return inputs if isinstance(batch, Tensor) else Batch(inputs, batch.targets, batch.classes)


class Spy(Plugin):
    """Writes down what it is asked, and halves what passes."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def before_batch(self, batch: Batch) -> Batch:
        self.calls.append("before_batch")
        return Batch(batch.inputs[::2], batch.targets[::2], batch.classes)

    def on_loss(self, loss: Tensor, context: LossContext) -> Tensor:
        self.calls.append("on_loss")
        self.seen = len(context.batch.targets)
        return loss / 2

    def on_gradients(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        self.calls.append("on_gradients")
        return {name: 0 * value for name, value in gradients.items()}

    def after_step(self) -> None:
        self.calls.append("after_step")


@every_learner
def test_learning_lowers_the_loss(make: Make) -> None:
    learner, batch = with_labels(make)
    losses = [learner.update(batch)["loss"] for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    right = (learner.predict(batch.inputs).argmax(-1) == batch.targets).float().mean()
    assert right > 0.9


@every_learner
def test_answers_have_one_row_per_input_and_leave_nothing_behind(make: Make) -> None:
    learner, batch = fresh(make)
    learner.model.eval()
    before = weights(learner.model)
    x = inputs_of(batch)
    answer = learner.predict(x)
    assert answer.shape[0] == len(x) and answer.dim() == 2
    assert not answer.requires_grad
    assert torch.equal(answer, learner.predict(x))
    assert same(weights(learner.model), before)
    assert all(p.grad is None for p in learner.model.parameters())


@every_learner
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_and_no_step_made(make: Make, value: float) -> None:
    learner, batch = fresh(make)
    learner.update(batch)
    before = weights(learner.model)
    with pytest.raises(NonFiniteError) as caught:
        learner.update(with_inputs(batch, inputs_of(batch) * value))
    assert "\n" not in str(caught.value)
    assert same(weights(learner.model), before)


@every_learner
def test_a_gradient_that_is_not_finite_is_refused_by_name(make: Make) -> None:
    learner, batch = with_labels(make)
    before = parameters(learner.model)
    name, parameter = next(iter(learner.model.named_parameters()))
    parameter.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(NonFiniteError, match=name):
        learner.update(batch)
    assert same(parameters(learner.model), before)


@every_learner
@pytest.mark.parametrize("label", [-1, 1000])
def test_a_label_out_of_range_is_refused_in_one_line(make: Make, label: int) -> None:
    learner, batch = with_labels(make)
    before = parameters(learner.model)
    with pytest.raises(LabelError, match=f"label {label}") as caught:
        learner.update(Batch(batch.inputs, torch.full_like(batch.targets, label)))
    assert "\n" not in str(caught.value)
    assert same(parameters(learner.model), before)


@every_learner
def test_state_goes_round(make: Make, tmp_path: Path) -> None:
    learner, batch = fresh(make)
    learner.update(batch)
    tree = {"model": weights(learner.model), "learner": learner.state_dict()}
    saved = read_checkpoint(save_checkpoint(tmp_path, 1, tree))
    twin, _ = fresh(make, seed=3)
    twin.model.load_state_dict(saved["model"])
    twin.load_state_dict(saved["learner"])
    for each in (learner, twin):
        each.update(batch)
    assert same(weights(learner.model), weights(twin.model))


@every_learner
def test_same_seed_same_bits(make: Make) -> None:
    results: list[dict[str, Any]] = []
    for _ in range(2):
        learner, batch = fresh(make)
        for _ in range(3):
            learner.update(batch)
        results.append(weights(learner.model))
    assert same(*results)


@every_learner
def test_plugins_act_in_their_order(make: Make) -> None:
    learner, batch = with_labels(make)
    plain = learner.update(Batch(batch.inputs[::2], batch.targets[::2]))["loss"]
    learner, batch = fresh(make)
    spy = Spy()
    learner.plugins = [spy]
    before = parameters(learner.model)
    measured = learner.update(batch)
    assert spy.calls == ["before_batch", "on_loss", "on_gradients", "after_step"]
    assert spy.seen == len(batch.targets[::2])
    assert measured["loss"] == pytest.approx(plain / 2)
    assert same(parameters(learner.model), before)  # it let no gradient through


@every_learner
def test_answers_ruled_out_are_not_learned_from(make: Make) -> None:
    learner, batch = with_labels(make)
    allowed = tuple(sorted(set(batch.targets.tolist()) - {int(batch.targets.max())}))
    keep = torch.isin(batch.targets, torch.tensor(allowed))
    learner.update(Batch(batch.inputs[keep], batch.targets[keep], allowed))
    last = list(learner.model.parameters())[-1]
    assert last.grad is not None
    assert not last.grad[int(batch.targets.max())].any()


@every_learner
def test_a_task_begins_with_an_empty_optimizer(make: Make) -> None:
    learner, batch = fresh(make)
    learner.update(batch)
    learner.start_task()
    assert learner.optimizer is None or not learner.optimizer.state


@every_learner
def test_inputs_alone_are_adapted_to_whatever_their_labels(make: Make) -> None:
    learner, x = fresh(make)
    if not isinstance(x, Tensor):
        pytest.skip("it learns from pairs")
    before = weights(learner.model)
    modes = [module.training for module in learner.model.modules()]
    asks = [p.requires_grad for p in learner.model.parameters()]
    assert torch.isfinite(torch.tensor(learner.update(x)["loss"]))
    assert not same(weights(learner.model), before)
    assert [module.training for module in learner.model.modules()] == modes
    assert [p.requires_grad for p in learner.model.parameters()] == asks
    assert all(p.grad is None for p in learner.model.parameters())
    twin, _ = fresh(make)
    twin.update(Batch(x, torch.full((len(x),), -1)))
    assert same(weights(twin.model), weights(learner.model))


@every_learner
def test_its_own_loss_falls_on_inputs_met_again(make: Make) -> None:
    learner, x = fresh(make)
    if not isinstance(x, Tensor) or learner.optimizer is None:
        pytest.skip("it minimises nothing on inputs alone")
    losses = [learner.update(x)["loss"] for _ in range(60)]
    assert losses[-1] < losses[0]
