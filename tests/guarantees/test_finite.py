"""NaN and infinity stop training at the step that meets them; what was learned before is kept."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from neuropil.data import Task
from neuropil.data.task import Batch
from neuropil.errors import NeuropilError, NonFiniteError
from neuropil.training import Trainer, read_checkpoint
from neuropil.training.checkpoint import checkpoints
from tests.guarantees.lives import BATCH, FAMILIES, FEATURES, stream, task, trainer

pytestmark = pytest.mark.guarantee("R10")

BAD = (float("nan"), float("inf"), -float("inf"))


def batch(life: Trainer) -> Batch:
    x, y = task(0).train.tensors  # type: ignore[attr-defined]
    return Batch(x[:BATCH].clone(), y[:BATCH], None)


def weights(life: Trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in life.model.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x.nan_to_num(7), y.nan_to_num(7)) for x, y in zip(a, b, strict=True))


def begun(name: str) -> Trainer:
    """A family that has learned its stream, so that plugins have something to protect."""
    life = trainer(name)
    life.fit(stream())
    life.model.train()
    return life


@pytest.mark.parametrize("name", FAMILIES)
def test_bad_inputs_stop_before_the_optimizer_moves(name: str) -> None:
    life = begun(name)
    for value in BAD:
        before = weights(life)
        bad = batch(life)
        bad.inputs[3, 5] = value
        with pytest.raises(NonFiniteError) as caught:
            life.learner.update(bad)
        assert len(str(caught.value).splitlines()) == 1
        assert same(before, weights(life))


@pytest.mark.parametrize("name", FAMILIES)
def test_bad_weights_stop_before_the_optimizer_moves(name: str, tmp_path: Path) -> None:
    """Where no answer depends on one, as behind a ReLU, it is found before it is saved."""
    life = begun(name)
    life.checkpoint = tmp_path
    whole = copy.deepcopy(life.model.state_dict())
    for parameter in life.model.parameters():
        for value in BAD:
            with torch.no_grad():
                parameter.view(-1)[0] = value
            before = weights(life)
            try:
                life.learner.update(batch(life))
            except NonFiniteError as error:
                assert len(str(error).splitlines()) == 1
                assert same(before, weights(life))
            else:
                assert value == -math.inf, "NaN went through a step"
            with pytest.raises(NonFiniteError, match="before saving"):
                life._save((0, 0, 1))
            assert checkpoints(tmp_path) == []
            life.model.load_state_dict(whole)


@pytest.mark.parametrize("value", BAD)
def test_bad_targets_stop_before_the_optimizer_moves(value: float) -> None:
    model = nn.Linear(FEATURES, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    life = Trainer(model, optimizer, loss=nn.functional.mse_loss, progress=False)
    before = weights(life)
    targets = torch.zeros(4, 2)
    targets[1, 1] = value
    with pytest.raises(NonFiniteError):
        life.learner.update(Batch(torch.randn(4, FEATURES), targets, None))
    assert all(torch.equal(a, b) for a, b in zip(before, weights(life), strict=True))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("value", [1e38, 1e-42, 0.0])
def test_extreme_inputs_leave_finite_weights_or_are_told(name: str, value: float) -> None:
    life = begun(name)
    extreme = batch(life)
    extreme.inputs.fill_(value)
    for _ in range(3):
        try:
            life.learner.update(extreme)
        except NeuropilError as error:
            assert len(str(error).splitlines()) == 1
        assert all(torch.isfinite(p).all() for p in life.model.parameters())


@pytest.mark.parametrize("name", ["backprop", "OTTT", "HLOP of spikes with rehearsal", "EWC"])
@pytest.mark.parametrize("value", BAD)
def test_training_stops_at_the_step_says_where_and_keeps_the_checkpoint(
    name: str, value: float, tmp_path: Path
) -> None:
    life = trainer(name, tmp_path, checkpoint_every=1)
    good, bad = task(0), task(1)
    inputs, labels = bad.train.tensors  # type: ignore[attr-defined]
    inputs[7, 0] = value
    bad = Task("poisoned", TensorDataset(inputs, labels), good.validation, good.test, None, 1)
    with pytest.raises(NonFiniteError, match=r"task 'poisoned'.*the last good checkpoint is in") as caught:
        life.fit([good, bad])
    assert len(str(caught.value).splitlines()) == 1 and str(tmp_path) in str(caught.value)
    for path in checkpoints(tmp_path):
        tree = read_checkpoint(path)
        assert all(torch.isfinite(value).all() for value in tree["model"].values())
        assert all(map(math.isfinite, tree["history"]["losses"]))
    assert tree["step"] == life.step


def test_a_diverging_run_stops_with_the_last_good_weights_on_disk(tmp_path: Path) -> None:
    model = nn.Linear(FEATURES, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e38)
    life = Trainer(model, optimizer, checkpoint=tmp_path, checkpoint_every=1, epochs=50, progress=False)
    with pytest.raises(NonFiniteError, match="step"):
        life.fit([task(0)])
    tree = read_checkpoint(checkpoints(tmp_path)[-1])
    assert tree["step"] == life.step
