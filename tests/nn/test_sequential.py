from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, NonFiniteError, ShapeError, StateError
from neuropil.nn import RateReadout, Sequential, Stateful


class SumState(NamedTuple):
    total: Tensor


class RunningSum(Stateful):
    """y[t] = x[0] + ... + x[t] + state: a cell whose every value is known."""

    def initial_state(self, x: Tensor) -> SumState:
        return SumState(x.new_zeros(x.shape[1:]))

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, SumState]:
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        y = x.cumsum(0) + state.total
        return y, SumState(y[-1] if len(y) else state.total)


class Counting(nn.Linear):
    """A linear layer that knows how many rows it was given."""

    rows = 0

    def forward(self, input: Tensor) -> Tensor:
        self.rows += input.shape[0]
        return super().forward(input)


def linear_sum() -> tuple[nn.Module, Tensor]:
    return Sequential(nn.Linear(4, 3), RunningSum(), nn.Linear(3, 2), RateReadout()), torch.randn(5, 6, 4)


def static_sum() -> tuple[nn.Module, Tensor]:
    net = Sequential(nn.Linear(4, 3), RunningSum(), nn.Linear(3, 2), RateReadout(), time_steps=3)
    return net, torch.randn(6, 4)


def image_sum() -> tuple[nn.Module, Tensor]:
    block = Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), RunningSum(), nn.AvgPool2d(2))
    return Sequential(block, nn.Flatten(), nn.Linear(18, 2), RunningSum()), torch.randn(3, 4, 1, 8, 8)


PARTS = [("module", linear_sum), ("module", static_sum), ("module", image_sum)]


def test_equals_hand_written_loop() -> None:
    net, x = linear_sum()
    total, outputs = torch.zeros(6, 3), []
    for step in x:
        total = total + net[0](step)
        outputs.append(net[2](total))
    torch.testing.assert_close(net(x), torch.stack(outputs).mean(0))


def test_static_input_equals_repeated_input_and_is_projected_once() -> None:
    net = Sequential(Counting(4, 3), RunningSum(), Counting(3, 2), time_steps=5)
    moving = Sequential(*net)
    x = torch.randn(6, 4)
    still = net(x)
    assert (net[0].rows, net[2].rows) == (6, 30)
    torch.testing.assert_close(still, moving(x.expand(5, 6, 4)))


def test_static_input_is_held_without_a_copy() -> None:
    seen: list[tuple[int, ...]] = []
    cell = RunningSum()
    cell.register_forward_pre_hook(lambda _, args: seen.append(args[0].stride()))
    Sequential(nn.Linear(4, 3), cell, time_steps=5)(torch.randn(6, 4))
    assert seen[0][0] == 0


def test_static_input_reaches_hooks_as_a_sequence() -> None:
    seen: list[tuple[int, ...]] = []
    net = Sequential(nn.Linear(4, 3), RunningSum(), time_steps=5)
    x = torch.randn(6, 4)
    unhooked = net(x)
    net[1].register_forward_hook(lambda *args: seen.append(tuple(args[1][0].shape)))
    assert torch.equal(net(x), unhooked)
    assert seen == [(5, 6, 3)]


def test_static_input_passes_into_nested_block() -> None:
    first = Counting(4, 3)
    net = Sequential(Sequential(first, Sequential(RunningSum())), RateReadout(), time_steps=4)
    x = torch.randn(2, 4)
    torch.testing.assert_close(net(x), first(x) * 2.5)  # mean of 1, 2, 3, 4 times the input
    assert first.rows == 4  # 2 in the net, 2 in the line above


def test_static_input_without_any_cell_is_answered_for_every_step() -> None:
    assert Sequential(nn.Linear(4, 3), time_steps=5)(torch.zeros(2, 4)).shape == (5, 2, 3)


def test_unroll_in_pieces_equals_whole() -> None:
    net = Sequential(nn.Linear(4, 3), RunningSum(), Sequential(nn.Linear(3, 3), RunningSum()))
    x = torch.randn(7, 2, 4)
    whole, end = net.unroll(x)
    first, state = net.unroll(x[:3])
    second, last = net.unroll(x[3:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    assert end[0] is None and len(end) == 3
    torch.testing.assert_close(last[2][1].total, end[2][1].total)


def test_batch_norm_takes_statistics_over_time_and_batch() -> None:
    net = Sequential(nn.BatchNorm1d(3))
    y = net(torch.randn(5, 6, 3) * 4 + 1)
    torch.testing.assert_close(y.mean((0, 1)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var((0, 1), unbiased=False), torch.ones(3), atol=1e-3, rtol=0)


def test_layers_can_be_named_and_sliced() -> None:
    net = Sequential(OrderedDict(inputs=nn.Linear(4, 3), cell=RunningSum()))
    assert list(net.state_dict()) == ["inputs.weight", "inputs.bias"]
    assert isinstance(net[:1], Sequential)


@pytest.mark.parametrize(
    ("layers", "x", "message"),
    [
        (
            [nn.Flatten(), nn.Linear(784, 2)],
            torch.zeros(5, 2, 1, 30, 30),
            r"1 \(Linear\) .*900\].* 784 ",
        ),
        ([nn.Conv2d(3, 2, 3)], torch.zeros(5, 2, 1, 8, 8), r"0 \(Conv2d\) .*3 channels and 2 spatial"),
        ([nn.Conv2d(1, 2, 3)], torch.zeros(5, 2, 8, 8), r"0 \(Conv2d\) .*1 channels"),
        ([nn.BatchNorm2d(3)], torch.zeros(5, 2, 2, 8, 8), r"0 \(BatchNorm2d\) .*3 channels"),
        ([nn.Linear(4, 2)], torch.zeros(5, 4), r"0 \(Linear\) got \[5, 4\], expected \[time, batch"),
        ([RunningSum()], torch.zeros(5), r"expected \[time, batch"),
    ],
)
def test_wrong_input_is_told_in_one_line(layers: list[nn.Module], x: Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match=message) as caught:
        Sequential(*layers)(x)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_input_is_refused(value: float) -> None:
    net, x = linear_sum()
    x[1, 2, 3] = value
    with pytest.raises(NonFiniteError, match="1 of 120 values"):
        net(x)


def test_sum_that_overflows_is_no_infinity() -> None:
    assert Sequential(nn.Identity())(torch.full((4, 2), 3e38)).shape == (4, 2)


@pytest.mark.parametrize("state", [(None,), [None] * 4, (None, SumState(torch.zeros(2, 3)), None, None)])
def test_state_that_does_not_fit_is_told(state: Any) -> None:
    net, x = linear_sum()
    assert isinstance(net, Sequential)
    with pytest.raises(StateError) as caught:
        net.unroll(x, state)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layers", "settings", "message"),
    [
        ([RateReadout(), RunningSum()], {}, r"layer 1 \(RunningSum\) needs a time axis"),
        ([Sequential(RateReadout()), RateReadout()], {}, "needs a time axis"),
        ([nn.Sequential(RunningSum())], {}, "use neuropil.nn.Sequential"),
        ([Sequential(RunningSum(), time_steps=2)], {}, "outermost"),
        ([RunningSum()], {"time_steps": 0}, "need at least 1"),
    ],
)
def test_impossible_orders_are_refused_at_construction(layers: Any, settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sequential(*layers, **settings)
