from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from neuropil.continual import HomeostaticLearningRate
from neuropil.data import Batch
from neuropil.errors import ConfigError
from neuropil.training import Backprop
from tests.training.worlds import convolutional, mlp, parameters, same, spiking, task, weights


def batch(count: int = 24) -> Batch:
    x, y = task(0, count).train.tensors
    return Batch(x, y)


def homeostatic(network, lr=0.1, step=0.001, **settings):
    model = network()
    settings.setdefault("generator", torch.Generator().manual_seed(0))
    learner = HomeostaticLearningRate(
        model, torch.optim.SGD(model.parameters(), lr=lr), excitatory=(2, 3), step=step, **settings
    )
    return learner, batch()


PARTS = [("learner", partial(homeostatic, network)) for network in (mlp, convolutional, spiking)] + [
    ("learner", partial(homeostatic, mlp, regulation="random"))
]


def simulated_by_hand(
    model: nn.Module, now: Batch, memory: Batch, lr: float, step: float
) -> tuple[float, dict]:
    """One update, written out: the regulated rate and the parameters after it."""
    loss = functional.cross_entropy(model(now.inputs), now.targets)
    gradients = dict(zip(parameters(model), torch.autograd.grad(loss, list(model.parameters())), strict=True))
    guess = int(model(now.inputs[-1:]).argmax())
    judged = []
    for rate in (lr, lr + (step if guess in (2, 3) else -step)):
        after = {name: p - rate * gradients[name] for name, p in parameters(model).items()}
        twin = mlp()
        twin.load_state_dict(after)
        judged.append(functional.cross_entropy(twin(memory.inputs), memory.targets).item())
    if judged[1] < judged[0]:
        lr += step if int(now.targets[-1]) in (2, 3) else -step
    return lr, {name: p - lr * gradients[name] for name, p in parameters(model).items()}


def test_every_update_is_the_one_written_out_by_hand() -> None:
    torch.manual_seed(0)
    learner, whole = homeostatic(mlp, lr=0.2, step=0.02, memory=9)
    model, lr, rates = mlp(), 0.2, []
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1)).repeat(5)
    for start in range(0, 100, 4):
        rows = order[start : start + 4]
        now = Batch(whole.inputs[rows], whole.targets[rows])
        seen = order[max(0, start + 4 - 9) : start + 4]
        lr, after = simulated_by_hand(model, now, Batch(whole.inputs[seen], whole.targets[seen]), lr, 0.02)
        model.load_state_dict(after)
        measured = learner.update(now)
        assert measured["lr"] == pytest.approx(lr)
        rates.append(lr)
    assert len({round(rate, 6) for rate in rates}) > 2  # the rate did go up and down
    for name, value in learner.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name])


def test_the_guess_decides_and_the_truth_acts() -> None:
    """Only when taking would help is the rate changed, and then by the true label, whatever was guessed."""

    class Fixed(nn.Module):
        def __init__(self, answer: int) -> None:
            super().__init__()
            self.bias = nn.Parameter(functional.one_hot(torch.tensor(answer), 4).float())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bias.expand(len(x), 4)

    for answer, truth, change in ((3, 0, -0.01), (3, 2, 0.01), (0, 1, 0.0), (0, 3, 0.0)):
        model = Fixed(answer)
        learner = HomeostaticLearningRate(
            model, torch.optim.SGD(model.parameters(), lr=0.1), excitatory=(2, 3), step=0.01
        )
        # a small step downhill always profits from a larger rate, so a guess that excites is taken
        learner.update(Batch(torch.zeros(5, 1), torch.full((5,), truth)))
        assert learner.lr == pytest.approx(0.1 + change)


def test_rates_never_fall_below_the_floor() -> None:
    learner, now = homeostatic(mlp, lr=0.005, step=0.004, regulation="random", floor=1e-3)
    low = Batch(now.inputs[now.targets == 0], now.targets[now.targets == 0])
    assert [learner.update(low)["lr"] for _ in range(20)][-1] == 1e-3


def test_random_regulation_takes_half_the_time() -> None:
    learner, now = homeostatic(mlp, lr=1.0, step=1e-6, regulation="random")
    low = Batch(now.inputs[now.targets == 3], now.targets[now.targets == 3])
    for _ in range(400):
        learner.update(low)
    assert (learner.lr - 1.0) / 1e-6 == pytest.approx(200, abs=40)  # four standard deviations


def test_with_an_imperceptible_step_it_is_backpropagation() -> None:
    learner, now = homeostatic(mlp, step=1e-30)
    model = mlp()
    plain = Backprop(model, torch.optim.SGD(model.parameters(), lr=0.1))
    for _ in range(5):
        assert learner.update(now)["loss"] == plain.update(now)["loss"]
    assert same(weights(learner.model), weights(model))


def test_imagining_leaves_the_model_and_its_statistics_alone() -> None:
    learner, now = homeostatic(convolutional)
    learner.update(now)
    before = weights(learner.model)
    learner._imagine(0.01, None)
    assert same(weights(learner.model), before) and learner.model.training


def test_what_cannot_be_is_refused() -> None:
    model = mlp()
    for optimizer in (
        torch.optim.Adam(model.parameters()),
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1),
    ):
        with pytest.raises(ConfigError, match="without momentum and weight decay"):
            HomeostaticLearningRate(model, optimizer, excitatory=(1,), step=0.1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="'random'"):
        HomeostaticLearningRate(model, sgd, excitatory=(1,), step=0.1, regulation="randon")
    for settings in ({"step": 0.0}, {"step": 0.1, "memory": 0}, {"step": 0.1, "floor": 0.0}):
        with pytest.raises(ConfigError, match="expected above 0"):
            HomeostaticLearningRate(model, sgd, excitatory=(1,), **settings)
