"""One process or two: the same numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuropil.continual import GPM, HLOP
from neuropil.errors import IncompatibleError
from neuropil.training import OTTT, Plugin, Trainer, transform_gradients, unwrapped
from tests.training.test_learner import online_network
from tests.training.worlds import BATCH, MODELS, mlp, same, sgd, stream, weights

lightning = pytest.importorskip("lightning_fabric")
from lightning_fabric.strategies import DDPStrategy  # noqa: E402


def hlop(model: nn.Module) -> list[Plugin]:
    return [HLOP(model, tasks=3)]  # no generator: processes draw the same neurons all the same


def gpm(model: nn.Module) -> list[Plugin]:
    return [GPM(model, samples=40)]


WAYS: dict[str, Any] = {"plain": lambda model: [], "hlop": hlop, "gpm": gpm}


def learn(way: str, network: Any, fabric: Any, rank: int = 0) -> dict[str, Tensor]:
    """Three tasks whose last batches are smaller than the others, one of a single sample."""
    model = network()
    torch.manual_seed(11 + rank)
    trainer = Trainer(
        model, sgd(model), plugins=WAYS[way](model), fabric=fabric, batch_size=BATCH, progress=False
    )
    history = trainer.fit(stream(3, count=49))
    return {**weights(model), "losses": torch.tensor(history.losses)}


def in_each_process(fabric: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        # the processes' own random states differ, as they would after dropout
        here = learn(way, mlp, fabric, rank=fabric.global_rank)
        found[way] = {name: value.tolist() for name, value in here.items()}
        for name, value in here.items():
            mean = fabric.all_reduce(value.clone(), reduce_op="mean")
            torch.testing.assert_close(
                mean, value, rtol=0, atol=1e-7, msg=f"{way}: {name} differs by process"
            )
    return found


def test_two_processes_learn_what_one_does() -> None:
    strategy = DDPStrategy(start_method="spawn", find_unused_parameters=True, process_group_backend="gloo")
    together = lightning.Fabric(accelerator="cpu", devices=2, strategy=strategy).launch(in_each_process)
    for way in WAYS:
        alone = learn(way, mlp, None)
        for name, value in alone.items():
            torch.testing.assert_close(torch.tensor(together[way][name]), value, rtol=0, atol=1e-5)


def one_process() -> Any:
    return lightning.Fabric(accelerator="cpu", devices=1)


@pytest.mark.parametrize("network", MODELS, ids=lambda network: network.__name__)
@pytest.mark.parametrize("way", WAYS)
def test_fabric_on_one_process_is_no_fabric(network: Any, way: str) -> None:
    assert same(learn(way, network, one_process()), learn(way, network, None))


def test_a_learner_brings_its_fabric() -> None:
    results = []
    for fabric in (None, one_process()):
        model = online_network()
        learner = OTTT(model, sgd(model), plugins=hlop(model), fabric=fabric)
        torch.manual_seed(11)
        Trainer(learner=learner, batch_size=BATCH, progress=False).fit(stream(2))
        results.append(weights(model))
    assert same(*results)


def test_lower_precision_trains_and_keeps_the_protection() -> None:
    model = mlp()
    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    protect = HLOP(model, sizes={name: (4, 4) for name in ("enter", "inner", "leave")})
    protect.before_task()
    protect.after_task()
    before = model.enter.weight.detach().clone()
    trainer = Trainer(model, sgd(model), plugins=[protect], fabric=fabric, progress=False)
    history = trainer.fit(stream(1))
    change = model.enter.weight.detach() - before
    assert change.norm() > 0 and history.average_accuracy >= 0
    assert (change @ protect.bases["enter"][:4].mT).norm() < 1e-4 * change.norm()


def test_names_are_the_users_inside_any_wrapper() -> None:
    fabric, model = one_process(), mlp()
    protect = HLOP(model, sizes={name: (4, 4) for name in ("enter", "inner", "leave")})
    protect.before_task()
    protect.after_task()
    protect.before_task()
    wrapped, optimizer = fabric.setup(model, sgd(model))
    protect.before_fit(wrapped, optimizer)
    for outer in (wrapped, torch.compile(model, backend="eager"), model):
        assert unwrapped(outer) is model
        model.zero_grad()
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        seen: list[str] = []

        class Names(Plugin):
            def on_gradients(self, gradients: Any, seen: list[str] = seen) -> Any:
                seen += gradients
                return {"enter.weight": 2 * gradients["enter.weight"]}

        expected = 2 * model.enter.weight.grad
        transform_gradients(outer, [Names()])
        assert seen == [name for name, _ in model.named_parameters()]
        assert torch.equal(model.enter.weight.grad, expected)
        assert model.enter.bias.grad is None  # left out: not stepped


def test_an_optimizer_inside_fabric_is_seen_through() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = Trainer(model, optimizer, plugins=hlop(model), fabric=one_process(), progress=False)
    with pytest.raises(IncompatibleError, match="momentum"):
        trainer.fit(stream(1))
