from __future__ import annotations

import torch

from neuropil.data import Batch
from neuropil.training import LossContext, OnlineAccuracy, Trainer
from tests.training.worlds import BATCH, mlp, sgd, stream

PARTS = [("plugin", lambda: lambda model: OnlineAccuracy())]


def test_each_batch_is_judged_before_it_is_learned() -> None:
    model, online = mlp(), OnlineAccuracy()
    first = stream(1)
    judge = Trainer(model, sgd(model, 0.5), plugins=[online], batch_size=BATCH, epochs=2, progress=False)
    before = mlp()
    x, y = first[0].train.tensors
    untrained = float((before(x).argmax(-1) == y).float().mean())
    judge.fit(first)
    assert len(online.accuracies) == 6
    assert online.mean == sum(online.accuracies) / 6  # batches are of one size here
    still = OnlineAccuracy()
    frozen = mlp()
    Trainer(frozen, sgd(frozen, 0.0), plugins=[still], batch_size=BATCH, progress=False).fit(first)
    assert still.mean == untrained < online.mean


def test_answers_are_taken_among_the_allowed_and_over_time() -> None:
    online = OnlineAccuracy()
    assert online.mean is None
    output = torch.tensor(
        [[[0.0, 2.0, 9.0], [3.0, 0.0, 9.0]], [[1.0, 0.0, 9.0], [0.0, 4.0, 9.0]]]
    )  # [time, batch, 3]
    batch = Batch(torch.zeros(2, 1), torch.tensor([1, 0]), (0, 1))
    loss = torch.zeros(())
    assert online.on_loss(loss, LossContext(batch, output)) is loss
    assert online.accuracies == [0.5] and online.mean == 0.5


def test_it_weighs_by_samples() -> None:
    online = OnlineAccuracy()
    for rows, right in ((3, True), (1, False)):
        target = torch.zeros(rows, dtype=torch.long) if right else torch.ones(rows, dtype=torch.long)
        online.on_loss(
            torch.zeros(()), LossContext(Batch(torch.zeros(rows, 1), target), torch.eye(2)[[0] * rows])
        )
    assert online.mean == 0.75
    other = OnlineAccuracy()
    other.load_state_dict(online.state_dict())
    assert other.mean == 0.75 and other.accuracies == [1.0, 0.0]
