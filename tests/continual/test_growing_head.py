from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from neuropil.continual import EWC, HLOP, MAS, SI, GrowingHead, OnlineEWC, Replay
from neuropil.data import Batch, Stream
from neuropil.training import Trainer
from tests.training.worlds import BATCH, FEATURES, by_hand, same, sgd, task, weights

PARTS = [("plugin", lambda: lambda model: GrowingHead(model, generator=torch.Generator().manual_seed(0)))]


def small(outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, outputs))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def pairs() -> Stream:
    return Stream((task(0, classes=(0, 1)), task(1, classes=(2, 3)), task(2, classes=(4, 5))), n_classes=6)


def test_the_head_grows_with_the_tasks_and_what_it_knew_stays() -> None:
    model = small()
    head = GrowingHead(model, generator=seeded())
    x = torch.rand(4, FEATURES)
    before, rows = model(x), model[2].weight.detach().clone()
    head.before_task(pairs()[1])
    assert model(x).shape == (4, 4) and torch.equal(model[2].weight[:2], rows)
    torch.testing.assert_close(model(x)[:, :2], before)
    head.before_task(pairs()[0])
    assert head.outputs == 4


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_new_outputs_are_learned_by_the_optimizer_that_was_there(kind) -> None:
    model = small()
    settings = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind(model.parameters(), lr=0.02, **settings)
    history = Trainer(model, optimizer, plugins=[GrowingHead(model, generator=seeded())], epochs=15, batch_size=BATCH,
                      progress=False).fit(pairs())  # fmt: skip
    assert model[2].out_features == 6 and model[2].weight.shape == (6, 16)
    assert [row[i] > 0.9 for i, row in enumerate(history.accuracy_matrix)] == [True] * 3
    assert history.untrained[1:] == [0.0, 0.0]  # answers that the model does not have yet cannot be right


def test_memory_of_momentum_begins_at_zero_for_new_outputs() -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    head = GrowingHead(model)
    head.before_fit(model, optimizer)
    model(torch.rand(3, FEATURES)).square().sum().backward()
    optimizer.step()
    memory = optimizer.state[model[2].weight]["momentum_buffer"].clone()
    head.grow_to(5)
    widened = optimizer.state[model[2].weight]["momentum_buffer"]
    assert torch.equal(widened[:2], memory) and not widened[2:].any() and widened.shape == (5, 16)
    model(torch.rand(3, FEATURES)).square().sum().backward()
    optimizer.step()


def test_labels_without_named_tasks_grow_it_too() -> None:
    model = small()
    stream = Stream(tuple(task(i, classes=c) for i, c in enumerate([(0, 1), (2, 3)])), n_classes=4)
    free = [replace(now, classes=None) for now in stream]
    Trainer(model, sgd(model), plugins=[GrowingHead(model), Replay(per_class=3)], progress=False).fit(free)
    assert model[2].out_features == 4


def test_in_a_hand_written_loop() -> None:
    model = small()
    by_hand(model, [GrowingHead(model, generator=seeded())], pairs())
    assert model[2].out_features == 6


def test_training_goes_on_after_a_kill_in_the_grown_model(tmp_path: Path) -> None:
    def trainer(model: nn.Module, stop: int | None = None) -> Trainer:
        class Stop(GrowingHead):
            steps = 0

            def before_batch(self, batch: Batch) -> Batch:
                self.steps += 1
                if self.steps == stop:
                    raise KeyboardInterrupt
                return super().before_batch(batch)

        plugin = Stop(model, generator=seeded())
        where = tmp_path if stop != 0 else None
        return Trainer(model, sgd(model), plugins=[plugin], batch_size=BATCH, checkpoint=where,
                       checkpoint_every=1 if where else None, progress=False)  # fmt: skip

    whole = small()
    trainer(whole, 0).fit(pairs())
    with pytest.raises(KeyboardInterrupt):
        trainer(small(), 6).fit(pairs())
    resumed = small()
    trainer(resumed).fit(pairs(), resume=True)
    assert same(weights(resumed), weights(whole))


@pytest.mark.parametrize("kind", [EWC, OnlineEWC, MAS, SI])
def test_beside_a_penalty_new_outputs_are_free_and_old_ones_held(kind) -> None:
    model = small()
    penalty = kind(model, strength=1.0)
    Trainer(model, sgd(model), plugins=[GrowingHead(model, generator=seeded()), penalty], batch_size=BATCH,
            progress=False).fit(pairs())  # fmt: skip
    assert model[2].out_features == 6 and penalty.penalty().isfinite()
    stiffness = penalty.state_dict()["stiffness"]["2.weight"]
    assert stiffness.shape == (6, 16) and stiffness.any()


def test_a_penalty_is_the_same_after_growth() -> None:
    model = small()
    ewc = EWC(model, strength=2.0)
    ewc.consolidate({name: torch.ones_like(p) for name, p in model.named_parameters()})
    with torch.no_grad():
        model[2].weight.add_(0.5)
    before = ewc.penalty().item()
    GrowingHead(model).grow_to(7)
    assert ewc.penalty().item() == pytest.approx(before)
    ewc.penalty().backward()
    assert not model[2].weight.grad[2:].any() and model[2].weight.grad[:2].any()


def test_beside_projection() -> None:
    model = small()
    plugins = [GrowingHead(model, generator=seeded()), HLOP(model, tasks=3, generator=seeded())]
    history = Trainer(
        model, sgd(model, 0.1), plugins=plugins, epochs=10, batch_size=BATCH, progress=False
    ).fit(pairs())
    assert history.average_accuracy > 0.5
