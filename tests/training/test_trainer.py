from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from neuropil.continual import EWC, GPM, HLOP, Rehearsal, Replay
from neuropil.data import Stream, Task, batches, from_huggingface
from neuropil.errors import (
    ConfigError,
    EmptyTaskError,
    IncompatibleError,
    LabelError,
    NonFiniteError,
)
from neuropil.training import Backprop, Plugin, Trainer
from neuropil.training.checkpoint import read_latest
from tests.training.worlds import BATCH, CLASSES, FEATURES, MODELS, mlp, same, sgd, stream, task, weights


def trainer(model: nn.Module, **settings: Any) -> Trainer:
    return Trainer(
        model, settings.pop("optimizer", None) or sgd(model),
        **{"batch_size": BATCH, "progress": False} | settings,
    )  # fmt: skip


def test_it_equals_the_ten_line_loop() -> None:
    model, plain = mlp(dropout=0.3), mlp(dropout=0.3)
    torch.manual_seed(5)
    history = trainer(model, epochs=2, seed=3).fit(stream(2))
    torch.manual_seed(5)
    optimizer, losses = sgd(plain), []
    for index, now in enumerate(stream(2)):
        for epoch in range(2):
            for x, y, _ in batches(now.train, BATCH, seed=3 + 1_000_003 * index, epoch=epoch):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(plain(x), y)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
    assert same(weights(model), weights(plain))
    assert history.losses == losses


@pytest.mark.parametrize("network", MODELS, ids=lambda network: network.__name__)
def test_same_seed_same_bits(network: Any) -> None:
    runs = []
    for seed in (0, 0, 1):
        model = network()
        history = trainer(model, seed=seed).fit(stream())
        runs.append((weights(model), history))
    assert same(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]
    assert not same(runs[0][0], runs[2][0])


def test_it_is_judged_on_all_tasks_met_and_the_next() -> None:
    model = mlp()
    tasks = stream(3)
    judge = trainer(model, epochs=10)
    chance = [judge.evaluate(now) for now in tasks]
    history = judge.fit(tasks)
    assert history.untrained == chance
    assert [[value is not None for value in row] for row in history.accuracy_matrix] == [
        [True, True, False], [True, True, True], [True, True, True],
    ]  # fmt: skip
    assert history.accuracy_matrix[-1] == [judge.evaluate(now) for now in tasks]
    x, y = tasks[2].test.tensors
    model.eval()
    assert judge.evaluate(tasks[2]) == float((model(x).argmax(1) == y).float().mean())


def test_it_is_judged_on_the_split_asked_for() -> None:
    now = task()
    empty = Task(
        "a", now.train, now.validation, TensorDataset(torch.zeros(0, FEATURES), torch.zeros(0).long())
    )
    trainer(mlp()).fit([empty], evaluate_on="validation")
    with pytest.raises(EmptyTaskError):
        trainer(mlp()).fit([empty])


def test_where_the_task_is_known_only_its_classes_compete() -> None:
    model = nn.Linear(FEATURES, CLASSES)
    nn.init.zeros_(model.weight)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([9.0, 9.0, 0.0, 1.0]))
    now = task(classes=(2, 3))
    assert trainer(model).evaluate(now) == 0.5  # always answers 3
    before = model.weight.detach().clone()
    trainer(model).fit([now])
    assert torch.equal(model.weight[:2], before[:2]) and not torch.equal(model.weight[2:], before[2:])


def test_a_new_task_meets_an_empty_optimizer() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    seen = []

    class Look(Plugin):
        def before_task(self, task: Task) -> None:
            seen.append(len(optimizer.state))

    trainer(model, optimizer=optimizer, plugins=[Look()]).fit(stream(2))
    assert seen == [0, 0] and optimizer.state


def test_plugins_are_called_in_the_order_they_are_promised() -> None:
    calls: list[str] = []

    class Spy(Plugin):
        def __getattribute__(self, name: str) -> Any:
            if not name.startswith("_") and name not in ("state_dict", "load_state_dict"):
                calls.append(name)
            return super().__getattribute__(name)

    trainer(mlp(), plugins=[Spy()], batch_size=48, epochs=2).fit(stream(1))
    step = ["before_batch", "as_pull", "on_loss", "take_gradients", "on_gradients", "after_step"]
    assert calls == [
        "beside", "before_fit", "before_eval", "before_task", "before_epoch", *step, "before_epoch", *step,
        "after_task", "before_eval", "after_fit",
    ]  # fmt: skip


def test_modules_keep_their_own_modes_through_evaluation() -> None:
    model = mlp(dropout=0.5)
    model.train()
    model.inner.eval()
    trainer(model).evaluate(task())
    assert model.dropout.training and not model.inner.training


@pytest.mark.guarantee("R10")
class TestBadInput:
    def spoiled(self, **changes: Any) -> Task:
        now = task(1)
        x, y = (t.clone() for t in now.train.tensors)
        for (row, column), value in changes.get("inputs", {}).items():
            x[row, column] = value
        for row, value in changes.get("targets", {}).items():
            y[row] = value
        return Task("spoiled", TensorDataset(x, y), now.validation, now.test, now.classes, 1)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_bad_number_in_the_data_stops_it_by_name(self, value: float, tmp_path: Path) -> None:
        model = mlp()
        bad = self.spoiled(inputs={(7, 3): value})
        judge = trainer(model, checkpoint=tmp_path)
        with pytest.raises(NonFiniteError) as caught:
            judge.fit([task(0), bad])
        line = str(caught.value)
        assert line.startswith(f"task 'spoiled', step {judge.step}: batch ") and "\n" not in line
        assert 3 <= judge.step < 6 and str(tmp_path) in line
        tree, _ = read_latest(tmp_path)
        assert tree["step"] == 3 and all(v.isfinite().all() for v in tree["model"].values())
        assert all(v.isfinite().all() for v in weights(model).values())

    def test_a_loss_that_runs_away_stops_it_in_the_step(self, tmp_path: Path) -> None:
        class Diverge(Plugin):
            left = 5

            def on_loss(self, loss: Tensor, context: Any) -> Tensor:
                self.left -= 1
                return loss * float("nan") if self.left == 0 else loss

        model = mlp()
        judge = trainer(model, plugins=[Diverge()], checkpoint=tmp_path)
        with pytest.raises(NonFiniteError, match=r"^task 'task1', step 4: loss is nan.*last good checkpoint"):
            judge.fit(stream(2))
        assert judge.step == 4 and read_latest(tmp_path)[0]["step"] == 3

    def test_a_gradient_that_is_not_finite_is_named(self) -> None:
        model = mlp()
        model.inner.weight.register_hook(lambda g: g / 0)
        before = weights(model)
        with pytest.raises(NonFiniteError, match=r"task 'task0', step 0: gradient of inner.weight"):
            trainer(model).fit(stream(1))
        assert same(weights(model), before)

    def test_bad_numbers_to_be_judged_by_are_found_before_learning(self) -> None:
        now = task()
        bad = TensorDataset(torch.full((3, FEATURES), float("nan")), torch.zeros(3).long())
        with pytest.raises(NonFiniteError, match="task 'odd', test samples: batch 0"):
            trainer(mlp()).fit([Task("odd", now.train, now.validation, bad)])

    @pytest.mark.parametrize("label", [-1, CLASSES])
    def test_labels_out_of_range(self, label: int) -> None:
        with pytest.raises(
            LabelError, match=f"^task 'spoiled', step 3: label {label} is out of range"
        ) as caught:
            trainer(mlp(), batch_size=48).fit([task(0), task(0), task(0), self.spoiled(targets={2: label})])
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("nothing", [[], ()])
    def test_no_tasks(self, nothing: Any) -> None:
        with pytest.raises(EmptyTaskError, match="has no tasks"):
            trainer(mlp()).fit(nothing)

    def test_no_samples(self) -> None:
        now = task()
        empty = TensorDataset(torch.zeros(0, FEATURES), torch.zeros(0).long())
        with pytest.raises(EmptyTaskError):
            trainer(mlp()).fit([Task("empty", empty, now.validation, now.test)])

    def test_settings(self) -> None:
        model = mlp()
        for name in ("epochs", "batch_size"):
            with pytest.raises(ConfigError, match=rf"Trainer.{name}: got 0, expected at least 1"):
                trainer(model, **{name: 0})
        with pytest.raises(ConfigError, match="a model and an optimizer, or a learner"):
            Trainer(model)
        with pytest.raises(ConfigError, match="give Trainer a checkpoint directory"):
            trainer(model).fit(stream(1), resume=True)
        learner = Backprop(model, sgd(model))
        for extra in ({"loss": nn.CrossEntropyLoss()}, {"plugins": [Plugin()]}, {"model": model}):
            with pytest.raises(ConfigError, match="a learner brings its"):
                Trainer(learner=learner, **extra)


@pytest.mark.parametrize("protect", [HLOP, GPM])
@pytest.mark.parametrize(
    "optimizer",
    [torch.optim.Adam, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9), torch.optim.AdamW],
)
def test_illegal_pairs_are_refused_before_a_step_is_made(protect: Any, optimizer: Any) -> None:
    model = mlp()
    before = weights(model)
    with pytest.raises(IncompatibleError):
        trainer(model, optimizer=optimizer(model.parameters(), lr=0.1), plugins=[protect(model)]).fit(
            stream()
        )
    assert same(weights(model), before)


@pytest.mark.parametrize("network", MODELS, ids=lambda network: network.__name__)
def test_the_whole_family_shares_one_network(network: Any) -> None:
    model = network()
    generators = [torch.Generator().manual_seed(i) for i in range(5)]
    plugins = [
        HLOP(model, tasks=3, generator=generators[0]),
        EWC(model, strength=1.0, samples=10, generator=generators[1]),
        Replay(per_class=2, generator=generators[2]),
        Rehearsal(per_class=2, generator=generators[3]),
    ]
    history = trainer(model, plugins=plugins).fit(stream())
    assert len(history.losses) == 9 and all(v.isfinite().all() for v in weights(model).values())


class TestSamplesOfAnyKind:
    def test_a_loader_of_the_users(self) -> None:
        now = task()
        loaded = Task(
            "loaded", DataLoader(now.train, 7), DataLoader(now.validation, 7), DataLoader(now.test, 7)
        )
        model, plain = mlp(), mlp()
        history = trainer(model).fit(Stream((loaded,), n_classes=CLASSES))
        assert len(history.losses) == 7
        optimizer = sgd(plain)
        for x, y in DataLoader(now.train, 7):
            optimizer.zero_grad()
            nn.functional.cross_entropy(plain(x), y).backward()
            optimizer.step()
        assert same(weights(model), weights(plain))

    def test_a_hugging_face_dataset(self) -> None:
        datasets = pytest.importorskip("datasets")
        now = task()

        def rows(samples: TensorDataset) -> Any:
            x, y = samples.tensors
            columns = {"x": x.tolist(), "y": y.tolist()}
            return from_huggingface(datasets.Dataset.from_dict(columns), "x", "y")

        model, plain = mlp(), mlp()
        trainer(model).fit([Task("table", rows(now.train), rows(now.validation), rows(now.test))])
        trainer(plain).fit([now])
        for a, b in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_a_progress_bar_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    model, plain = mlp(), mlp()
    trainer(model, progress=True).fit(stream(2))
    trainer(plain).fit(stream(2))
    assert same(weights(model), weights(plain))


def test_a_trainer_can_be_used_again() -> None:
    model = mlp()
    judge = trainer(model)
    first = copy.deepcopy(judge.fit(stream(1)))
    again = judge.fit(stream(1))
    assert len(again.losses) == len(first.losses) and again.losses[0] < first.losses[0]
