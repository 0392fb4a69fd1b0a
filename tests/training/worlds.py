"""Small tasks, and networks of three kinds that a user may bring, for the tests of training and continual learning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from neuropil.data import Stream, Task
from neuropil.data.batching import batches
from neuropil.nn import LIF, RateReadout, Sequential
from neuropil.training import LossContext, Plugin, transform_gradients

FEATURES, CLASSES, BATCH = 12, 4, 16


def task(index: int = 0, count: int = 48, classes: tuple[int, ...] | None = None) -> Task:
    """Noisy prototypes, other ones in every task."""
    generator = torch.Generator().manual_seed(100 + index)
    labels = torch.tensor(classes or range(CLASSES))
    prototypes = torch.rand(len(labels), FEATURES, generator=generator) * 2

    def draw(n: int) -> TensorDataset:
        which = torch.arange(n) % len(labels)
        noise = 0.2 * torch.randn(n, FEATURES, generator=generator)
        return TensorDataset(prototypes[which] + noise, labels[which])

    return Task(f"task{index}", draw(count), draw(16), draw(16), classes, index)


def stream(tasks: int = 3, count: int = 48) -> Stream:
    return Stream(tuple(task(i, count) for i in range(tasks)), n_classes=CLASSES)


class Branches(nn.Module):
    """A model as users write them: not a Sequential, with a skip connection and dropout."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.enter, self.inner = nn.Linear(FEATURES, 14), nn.Linear(14, 14)
        self.leave, self.dropout = nn.Linear(14, CLASSES), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.enter(x))
        return self.leave(self.dropout(h + torch.relu(self.inner(h))))


def mlp(dropout: float = 0.0, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Branches(dropout)


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 3, 4)), nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 5, 2, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(30, CLASSES),
    )  # fmt: skip


def spiking() -> nn.Module:
    torch.manual_seed(0)
    return Sequential(
        nn.Linear(FEATURES, 16),
        LIF(learn_threshold=True),
        nn.Linear(16, CLASSES),
        RateReadout(),
        time_steps=4,
    )


MODELS = (mlp, convolutional, spiking)


def sgd(model: nn.Module, lr: float = 0.05) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr)


def by_hand(
    model: nn.Module,
    plugins: Sequence[Plugin],
    tasks: Sequence[Task],
    *,
    optimizer: torch.optim.Optimizer | None = None,
    skip: int = 0,
    stop: int | None = None,
    fit_begins: bool = True,
) -> None:
    """The loop that a user would write, from step `skip` on and no further than `stop`; no Trainer in it."""
    optimizer = optimizer or sgd(model)
    step = 0
    for plugin in plugins:
        plugin.beside(plugins)
    for plugin in plugins:
        if fit_begins:
            plugin.before_fit(model, optimizer)
    for index, now in enumerate(tasks):
        model.train()
        if step >= skip:
            for plugin in plugins:
                plugin.before_task(now)
                plugin.before_epoch(0)
        for batch in batches(now.train, BATCH, seed=1_000_003 * index, epoch=0, classes=now.classes):
            if step == stop:
                return
            if step >= skip:
                one_step(model, optimizer, plugins, batch)
            step += 1
        if step > skip:
            for plugin in plugins:
                plugin.after_task(now)


def one_step(model: nn.Module, optimizer: Any, plugins: Sequence[Plugin], batch: Any) -> None:
    for plugin in plugins:
        batch = plugin.before_batch(batch)
    optimizer.zero_grad()
    output = model(batch.inputs)
    loss = nn.functional.cross_entropy(output, batch.targets)
    for plugin in plugins:
        loss = plugin.on_loss(loss, LossContext(batch, output))
    loss.backward()
    transform_gradients(model, plugins)
    optimizer.step()
    for plugin in plugins:
        plugin.after_step()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def practise(model: nn.Module, plugins: Sequence[Plugin], now: Task, passes: int, lr: float) -> None:
    """Pass over one task many times, without telling plugins that it ends."""
    optimizer = sgd(model, lr)
    model.train()
    for epoch in range(passes):
        for batch in batches(now.train, BATCH, epoch=epoch, classes=now.classes):
            one_step(model, optimizer, plugins, batch)


def loss_on(model: nn.Module, now: Task) -> float:
    x, y = now.train.tensors
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(x), y))
