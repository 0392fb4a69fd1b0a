"""What every optimizer keeps: it is a torch optimizer like any other, in anybody's loop."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from neuropil.continual import EWC, Replay
from neuropil.data.task import Batch
from neuropil.errors import NeuropilError
from neuropil.training import Trainer
from tests.contracts.parts import Make, parts
from tests.training.worlds import BATCH, FEATURES, MODELS, by_hand, mlp, one_step, same, stream, task, weights

every_optimizer = pytest.mark.parametrize("make", parts("optimizer"))
on_every_model = pytest.mark.parametrize("network", MODELS, ids=lambda network: network.__name__)


def equal(a: Any, b: Any) -> bool:
    left, right = tree_leaves(a), tree_leaves(b)
    return len(left) == len(right) and all(
        torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in zip(left, right, strict=True)
    )


def pairs(steps: int, dtype: torch.dtype = torch.float32) -> list[Batch]:
    generator = torch.Generator().manual_seed(3)
    return [
        Batch(torch.rand(BATCH, FEATURES, generator=generator).to(dtype), torch.arange(BATCH) % 4)
        for _ in range(steps)
    ]


def train(model: nn.Module, optimizer: Optimizer, batches: Sequence[Batch]) -> None:
    for batch in batches:
        one_step(model, optimizer, [], batch)


def clone(values: Sequence[Tensor]) -> list[Tensor]:
    return [value.detach().clone() for value in values]


@every_optimizer
def test_it_is_a_torch_optimizer(make: Make) -> None:
    model = mlp()
    optimizer = make()(model.parameters())
    assert isinstance(optimizer, Optimizer)
    assert isinstance(optimizer.param_groups[0]["lr"], float | Tensor)
    assert "Parameter Group 0" in repr(optimizer)


@every_optimizer
@on_every_model
def test_it_learns(make: Make, network: Callable[[], nn.Module]) -> None:
    model = network()
    history = Trainer(model, make()(model.parameters()), batch_size=BATCH, epochs=20, progress=False).fit(
        stream(1)
    )
    assert history.average_accuracy > 0.8


@every_optimizer
def test_it_descends_a_quadratic(make: Make) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(20))
    target = torch.randn(20)
    optimizer = make()([weight])
    start = float((weight.detach() - target).square().sum())
    for _ in range(200):
        optimizer.zero_grad()
        (weight - target).square().sum().backward()
        optimizer.step()
    assert float((weight.detach() - target).square().sum()) < 0.2 * start


@every_optimizer
@pytest.mark.parametrize("through_file", [False, True], ids=["memory", "file"])
def test_saved_and_read_it_goes_on_to_the_same_bits(make: Make, through_file: bool) -> None:
    batches = pairs(12)
    whole = mlp()
    train(whole, make()(whole.parameters()), batches)

    model = mlp()
    optimizer = make()(model.parameters())
    train(model, optimizer, batches[:5])
    state: dict[str, Any] = copy.deepcopy(optimizer.state_dict())
    if through_file:
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    resumed = mlp(seed=1)
    resumed.load_state_dict(model.state_dict())
    fresh = make()(resumed.parameters())
    fresh.load_state_dict(state)
    assert equal(fresh.state_dict(), optimizer.state_dict())
    train(resumed, fresh, batches[5:])
    assert same(weights(resumed), weights(whole))


@every_optimizer
def test_the_state_of_one_is_not_the_state_of_another(make: Make) -> None:
    batches = pairs(6)
    model = mlp()
    optimizer = make()(model.parameters())
    train(model, optimizer, batches[:3])
    twin_model = copy.deepcopy(model)
    twin = make()(twin_model.parameters())
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before, state = weights(model), copy.deepcopy(optimizer.state_dict())
    train(twin_model, twin, batches[3:])
    assert same(weights(model), before)
    assert equal(optimizer.state_dict(), state)


@every_optimizer
def test_same_seed_same_bits_and_the_process_random_state_stays(make: Make) -> None:
    results = []
    for process_seed in (1, 2):
        model = mlp()
        optimizer = make()(model.parameters())
        torch.manual_seed(process_seed)
        state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        train(model, optimizer, pairs(8))
        assert torch.equal(state[0], torch.get_rng_state())
        assert np.array_equal(state[1], np.random.get_state()[1])  # noqa: NPY002
        results.append((weights(model), optimizer.state_dict()))
    assert equal(results[0], results[1])


@every_optimizer
def test_gradients_are_read_and_not_written(make: Make) -> None:
    model = mlp()
    optimizer = make()(model.parameters())
    train(model, optimizer, pairs(3))
    before = clone([p.grad for p in model.parameters()])
    optimizer.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))


@every_optimizer
def test_groups_step_at_their_own_rates(make: Make) -> None:
    model = mlp()
    held = {"params": list(model.enter.parameters()), "lr": 0.0}
    optimizer = make()([held, {"params": list(model.leave.parameters())}])
    optimizer.add_param_group({"params": list(model.inner.parameters())})
    before = weights(model)
    train(model, optimizer, pairs(2))
    moved = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert "leave.weight" in moved and "inner.weight" in moved
    assert not {name for name in moved if name.startswith("enter")}


@every_optimizer
def test_a_group_is_a_model_of_its_own(make: Make) -> None:
    """Two groups alike do what one group does, unless the rule looks at a whole group, as a share of it."""
    one, two = mlp(), mlp()
    train(one, make()([{"params": [p]} for p in one.parameters()]), pairs(4))
    train(two, make()([{"params": [p]} for p in reversed(list(two.parameters()))]), pairs(4))
    assert same(weights(one), weights(two))


@every_optimizer
def test_a_closure_is_called_with_gradients_and_its_loss_returned(make: Make) -> None:
    model = mlp()
    optimizer = make()(model.parameters())
    batch = pairs(1)[0]
    before = weights(model)

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch.inputs), batch.targets)
        loss.backward()
        return loss

    expected = float(nn.functional.cross_entropy(model(batch.inputs), batch.targets).detach())
    with torch.no_grad():
        loss = optimizer.step(closure)
    assert float(torch.as_tensor(loss).detach()) == pytest.approx(expected)
    assert not same(weights(model), before)
    assert optimizer.step() is None


@every_optimizer
def test_parameters_without_gradient_are_left_alone(make: Make) -> None:
    model = mlp()
    model.inner.requires_grad_(False)
    unused = nn.Parameter(torch.ones(3))
    optimizer = make()([*model.parameters(), unused])
    optimizer.step()  # before any gradient is there
    before = weights(model)
    train(model, optimizer, pairs(2))
    after = weights(model)
    assert torch.equal(after["inner.weight"], before["inner.weight"])
    assert not torch.equal(after["enter.weight"], before["enter.weight"])
    assert torch.equal(unused, torch.ones(3))


@every_optimizer
def test_maximize_is_the_same_on_the_negative(make: Make) -> None:
    down, up = mlp(), mlp()
    lower, higher = make()(down.parameters()), make()(up.parameters())
    if "maximize" not in lower.param_groups[0]:
        pytest.skip("does not offer it")
    for group in higher.param_groups:
        group["maximize"] = True
    for batch in pairs(3):
        for model, optimizer, sign in ((down, lower, 1.0), (up, higher, -1.0)):
            optimizer.zero_grad()
            (sign * nn.functional.cross_entropy(model(batch.inputs), batch.targets)).backward()
            optimizer.step()
    assert same(weights(down), weights(up))


@every_optimizer
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_kept(make: Make, dtype: torch.dtype) -> None:
    model = mlp().to(dtype)
    optimizer = make()(model.parameters())
    train(model, optimizer, pairs(3, dtype))
    assert all(value.dtype == dtype and value.isfinite().all() for value in weights(model).values())
    for parameter, state in optimizer.state.items():
        assert all(leaf.device == parameter.device for leaf in tree_leaves(state) if isinstance(leaf, Tensor))


@every_optimizer
@pytest.mark.parametrize("value", ["complex", "sparse"])
def test_what_it_cannot_step_is_refused_in_one_line(make: Make, value: str) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 3, dtype=torch.complex64 if value == "complex" else torch.float32))
    before = weight.detach().clone()
    try:
        optimizer = make()([weight])
        weight.grad = torch.ones_like(weight).to_sparse() if value == "sparse" else torch.ones_like(weight)
        optimizer.step()
    except (NeuropilError, RuntimeError, ValueError) as error:
        assert "\n" not in str(error) and value in str(error).lower()
        assert torch.equal(weight, before)
    else:
        assert torch.view_as_real(weight).isfinite().all() if value == "complex" else weight.isfinite().all()
        assert not torch.equal(weight, before)


@every_optimizer
def test_bad_rates_are_refused(make: Make) -> None:
    optimizer = make()(mlp().parameters())
    kind = type(optimizer)
    for lr in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=r"lr|learning rate") as caught:
            kind(mlp().parameters(), lr=lr)
        assert "\n" not in str(caught.value)


@every_optimizer
def test_schedulers_set_its_rate(make: Make) -> None:
    model = mlp()
    optimizer = make()(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.0)
    batches = pairs(4)
    for batch in batches[:2]:
        train(model, optimizer, [batch])
        scheduler.step()
    before = weights(model)
    train(model, optimizer, batches[2:])
    assert same(weights(model), before)  # a rate of zero moves nothing


@every_optimizer
def test_it_works_beside_plugins(make: Make) -> None:
    results = []
    for _ in range(2):
        model = mlp()
        plugins = [
            Replay(per_class=2, generator=torch.Generator().manual_seed(1)),
            EWC(model, strength=1.0, samples=8, generator=torch.Generator().manual_seed(2)),
        ]
        by_hand(model, plugins, stream(), optimizer=make()(model.parameters()))
        assert all(value.isfinite().all() for value in weights(model).values())
        results.append(weights(model))
    assert same(*results)


@every_optimizer
def test_the_trainer_resumes_to_the_same_bits(make: Make, tmp_path: Any) -> None:
    def trainer(model: nn.Module) -> Trainer:
        return Trainer(
            model, make()(model.parameters()), batch_size=BATCH, epochs=2, progress=False, checkpoint=tmp_path
        )

    whole, part = mlp(), mlp()
    Trainer(whole, make()(whole.parameters()), batch_size=BATCH, epochs=2, progress=False).fit(stream(2))
    tasks = stream(2)
    trainer(part).fit([tasks[0]])
    resumed = mlp(seed=1)
    trainer(resumed).fit(tasks, resume=True)
    assert same(weights(resumed), weights(whole))


@every_optimizer
def test_a_compiled_model_is_trained_alike(make: Make) -> None:
    torch._dynamo.reset()
    eager, inside = mlp(), mlp()
    compiled = torch.compile(inside, backend="aot_eager")
    train(eager, make()(eager.parameters()), pairs(3))
    train(compiled, make()(compiled.parameters()), pairs(3))
    for name, value in weights(eager).items():
        torch.testing.assert_close(weights(inside)[name], value)


@every_optimizer
def test_two_optimizers_leave_each_other_alone(make: Make) -> None:
    first, second = mlp(), mlp(seed=1)
    one, two = make()(first.parameters()), make()(second.parameters())
    train(second, two, pairs(2))
    before, state = weights(second), copy.deepcopy(two.state_dict())
    train(first, one, pairs(3))
    assert same(weights(second), before)
    assert equal(two.state_dict(), state)


@every_optimizer
def test_hooks_around_its_step_are_called(make: Make) -> None:
    model = mlp()
    optimizer = make()(model.parameters())
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    train(model, optimizer, [Batch(*task().train.tensors)])
    assert seen == ["before", "after"]
