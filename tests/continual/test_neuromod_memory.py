from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.continual import DecoupledUpdate, MemoryNetwork, SurpriseGate, SyntheticGradient
from neuropil.data.task import Batch
from neuropil.errors import ConfigError, NonFiniteError, ShapeError, UnknownNameError
from tests.training.worlds import parameters, same


def network() -> Any:
    return MemoryNetwork(6, 3, hidden=8, slots=4, key=4, value=3), torch.randn(5, 4, 6)


def predictor() -> Any:
    module = SyntheticGradient(5, 7)
    nn.init.normal_(module.net[-1].weight)
    smooth = nn.Sequential(module.net[0], nn.Tanh(), module.net[2])
    return module, torch.randn(4, 6, 5), smooth


def one_answer(**settings: Any) -> Any:
    """Sequences of three steps, one label each, all in one chunk: what every learner can be asked."""
    net = MemoryNetwork(6, 3, hidden=32, slots=4)
    targets = torch.arange(12) % 3
    inputs = torch.randn(12, 3, 6) * 0.1
    inputs[torch.arange(12), -1, targets] += 1.5
    learner = DecoupledUpdate(net, torch.optim.Adam(net.parameters(), lr=0.02), truncation=3, **settings)
    return learner, Batch(inputs, targets)


PARTS = [("module", network), ("module", predictor), ("learner", one_answer)]


class State(NamedTuple):
    sum: Tensor  # [batch, width]


class Adder(nn.Module):
    """A user's own model: adds up what it sees through one weight, and answers from the sum."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.enter = nn.Parameter(torch.randn(4, 3, generator=generator, dtype=dtype))
        self.leave = nn.Parameter(torch.randn(2, 4, generator=generator, dtype=dtype))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        total = x.new_zeros(x.shape[1], 4) if state is None else state.sum
        sums = []
        for step in x:
            total = torch.tanh(total + step @ self.enter.T)
            sums.append(total)
        return torch.stack(sums) @ self.leave.T, State(total)


def sequences(steps: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, steps, 3, generator=generator, dtype=torch.float64)
    return Batch(x, torch.randint(2, (5, steps), generator=generator))


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr)


def full_loss(model: nn.Module, batch: Batch) -> Tensor:
    out, _ = model(batch.inputs.transpose(0, 1))
    return functional.cross_entropy(out.flatten(0, 1), batch.targets.T.flatten())


def test_without_truncation_it_is_backpropagation_through_time() -> None:
    model, twin, batch = Adder(), Adder(), sequences()
    found = DecoupledUpdate(model, sgd(model), truncation=None, max_norm=None).update(batch)
    loss = full_loss(twin, batch)
    loss.backward()
    sgd(twin).step()
    assert found["loss"] == pytest.approx(float(loss.detach()))
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_slow_path_is_one_step_on_the_whole_gradient() -> None:
    model, twin, batch = Adder(), Adder(), sequences()
    learner = DecoupledUpdate(model, sgd(model, 0.0), slow=sgd(model), truncation=2, max_norm=None)
    learner.update(batch)
    full_loss(twin, batch).backward()
    sgd(twin).step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


class Oracle(nn.Module):
    """A predictor that knows."""

    def __init__(self) -> None:
        super().__init__()
        self.truth = nn.Parameter(torch.zeros(5, 4, dtype=torch.float64))

    def forward(self, state: Tensor) -> Tensor:
        return self.truth.expand_as(state)


def test_with_the_true_gradient_predicted_a_chunk_learns_as_through_all_of_time() -> None:
    """Half of the sequence with the other half's gradient predicted: the first half's full gradient."""
    model, batch = Adder(), sequences()
    first, last = batch.inputs[:, :3].transpose(0, 1), batch.inputs[:, 3:].transpose(0, 1)
    out, state = model(first)
    total = functional.cross_entropy(out.flatten(0, 1), batch.targets[:, :3].T.flatten())
    cut = State(state.sum.detach().requires_grad_())
    later, _ = model(last, cut)
    functional.cross_entropy(later.flatten(0, 1), batch.targets[:, 3:].T.flatten()).backward()
    future = cut.sum.grad
    model.zero_grad()
    (
        total
        + functional.cross_entropy(model(last, state)[0].flatten(0, 1), batch.targets[:, 3:].T.flatten())
    ).backward()
    through_all = model.enter.grad - _own_gradient(last, cut, batch)
    twin = Adder()
    oracle = Oracle()
    oracle.truth.data = future
    learner = DecoupledUpdate(twin, sgd(twin), truncation=3, synthetic={"sum": oracle}, max_norm=None)
    learner._scales["sum"] = 1.0
    before = twin.enter.detach().clone()
    steps: list[Tensor] = []
    twin.enter.register_hook(lambda g: steps.append(g.clone()))
    learner.update(batch)
    torch.testing.assert_close(steps[0], through_all)
    assert not torch.equal(before, twin.enter)


def _own_gradient(last: Tensor, cut: State, batch: Batch) -> Tensor:
    """What the second half does to the entering weight without the first half's help."""
    model = Adder()
    later, _ = model(last, State(cut.sum.detach()))
    functional.cross_entropy(later.flatten(0, 1), batch.targets[:, 3:].T.flatten()).backward()
    return model.enter.grad


@pytest.mark.parametrize("has_slow", [False, True])
def test_predictors_learn_what_arrives(has_slow: bool) -> None:
    torch.manual_seed(0)
    model, batch = Adder(), sequences(4)
    learner = DecoupledUpdate(
        model, sgd(model, 0.0), slow=sgd(model, 0.0) if has_slow else None, truncation=2,
        synthetic={"sum": SyntheticGradient(4).double()}, synthetic_lr=0.02,
    )  # fmt: skip
    first = learner.update(batch)["alignment"]
    for _ in range(200):
        last = learner.update(batch)["alignment"]
    assert first < 0.5 and last > 0.95


def test_an_untrained_predictor_changes_nothing() -> None:
    model, twin, batch = Adder(), Adder(), sequences()
    DecoupledUpdate(model, sgd(model), truncation=3).update(batch)
    learner = DecoupledUpdate(twin, sgd(twin), truncation=3, synthetic={"sum": SyntheticGradient(4).double()})
    learner.update(batch)
    assert same(parameters(model), parameters(twin))


def test_one_predictor_serves_two_networks() -> None:
    shared = SyntheticGradient(4).double()
    before = [p.detach().clone() for p in shared.parameters()]
    for _ in range(2):
        model = Adder()
        learner = DecoupledUpdate(model, sgd(model), truncation=3, synthetic={"sum": shared})
        learner.update(sequences())
    assert not torch.equal(before[-1], shared.net[-1].bias)


def test_state_goes_round_with_predictors_and_both_paths() -> None:
    def make() -> DecoupledUpdate:
        torch.manual_seed(5)
        model = Adder()
        adam, slow = (torch.optim.Adam(model.parameters(), lr=0.01) for _ in range(2))
        return DecoupledUpdate(
            model, adam, slow=slow, truncation=2, synthetic={"sum": SyntheticGradient(4).double()}, gain=1.0
        )

    learner, twin, batch = make(), make(), sequences()
    learner.update(batch)
    twin.model.load_state_dict(learner.model.state_dict())
    twin.load_state_dict(copy.deepcopy(learner.state_dict()))
    for each in (learner, twin):
        each.update(batch)
    assert same(parameters(learner.model), parameters(twin.model))


def test_surprise_learns_more_than_what_is_known() -> None:
    gate = SurpriseGate(2.0)
    losses = torch.tensor([0.0, 1.0, 2.0])
    factors = gate(losses)
    z = (losses - 1) / (2 / 3) ** 0.5
    torch.testing.assert_close(factors, 2 / (1 + torch.exp(-2 * z)))
    assert torch.equal(SurpriseGate(0.0)(losses), torch.ones(3))
    for _ in range(200):
        gate(torch.tensor([5.0, 7.0]))
    assert float(gate(torch.tensor([6.0]))) == pytest.approx(1.0, abs=0.01)


def test_it_learns_to_learn_a_label_within_the_sequence() -> None:
    """Two patterns, labelled anew in each sequence: only a memory can tell the second half."""
    torch.manual_seed(0)
    net = MemoryNetwork(4, 2, hidden=16, slots=6, key=4, value=4)
    learner = DecoupledUpdate(
        net, torch.optim.Adam(net.parameters(), lr=0.004), slow=torch.optim.Adam(net.parameters(), lr=0.02),
        truncation=3, synthetic={"memory": SyntheticGradient(8)},
    )  # fmt: skip

    def draw(count: int) -> Batch:
        which, meaning = torch.randint(2, (count, 6)), torch.randint(2, (count, 1))
        labels = which ^ meaning
        told = functional.one_hot(labels, 2).float().roll(1, 1)
        told[:, 0] = 0
        return Batch(torch.cat([functional.one_hot(which, 2).float(), told], -1), labels)

    for _ in range(80):
        learner.update(draw(32))
    test = draw(200)
    right = learner.answers(test.inputs).argmax(-1) == test.targets
    assert right[:, 0].float().mean() < 0.65 and right[:, 3:].float().mean() > 0.9


FLAT = Batch(torch.zeros(3, 2), torch.zeros(3).long())
NAN = Batch(torch.full((3, 2, 3), float("nan")), torch.zeros(3, 2).long())
WRONG = {"sun": SyntheticGradient(4)}


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: DecoupledUpdate(m, sgd(m), truncation=0), ConfigError, "truncation: got 0"),
        (lambda m: DecoupledUpdate(m, sgd(m), max_norm=0), ConfigError, "max_norm"),
        (lambda m: SurpriseGate(-1), ConfigError, "gain"),
        (lambda m: SyntheticGradient(0), ConfigError, "width"),
        (lambda m: DecoupledUpdate(m, sgd(m)).update(FLAT), ShapeError, "batch, time"),
        (lambda m: DecoupledUpdate(m, sgd(m), synthetic=WRONG).update(sequences(8)), UnknownNameError, "'sum'"),
        (lambda m: DecoupledUpdate(m, sgd(m)).update(NAN), NonFiniteError, "inputs"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call(Adder())
    assert "\n" not in str(caught.value)
