from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from neuropil.errors import ConfigError, NonFiniteError
from neuropil.nn import QIF, AdEx, HodgkinHuxley
from neuropil.nn.cell import put
from neuropil.nn.solver import ORDERS, advance
from tests.nn.orders import measured_orders


@pytest.mark.parametrize("method", ORDERS)
def test_solvers_have_their_order(method):
    def turned(dt):  # a quarter turn of (1, 0)
        state = (torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
        for _ in range(round(math.pi / 2 / dt)):
            state = advance(lambda a, b: (-b, a), state, dt, method)
        return state[0].item()

    orders = measured_orders(turned, 0.0, [math.pi / 2 / n for n in (64, 128, 256)])
    # from a symmetric start some methods lose less than they may
    assert all(order > ORDERS[method] - 0.1 for order in orders)


def test_learned_positive_numbers_stay_positive():
    cell = AdEx(learn=("tau", "b"), features=2)
    assert {name for name, _ in cell.named_parameters()} == {"log_tau", "b"}
    with torch.no_grad():
        cell.log_tau -= 50
    assert (cell.numbers()["tau"] > 0).all()
    assert cell.numbers(torch.float64)["tau"].dtype == torch.float64
    assert_close(AdEx(learn=True).numbers(), AdEx().numbers())


def test_learning_reaches_every_number():
    cell = QIF(learn=True, features=3)
    cell(torch.rand(400, 2, 3) * 4)[0].sum().backward()
    assert len(list(cell.parameters())) == 6
    assert all(parameter.grad.abs().sum() > 0 for parameter in cell.parameters())


def test_one_set_of_numbers_per_neuron():
    x = torch.full((600, 1, 2), 800.0)
    both = AdEx(b=torch.tensor([0.0, 200.0]), features=2)(x)[0]
    assert torch.equal(both[..., 0], AdEx(b=0.0)(x[..., 0])[0])
    assert torch.equal(both[..., 1], AdEx(b=200.0)(x[..., 1])[0])
    assert both[..., 0].sum() > both[..., 1].sum() > 0


def test_without_a_gradient_through_time_each_step_stands_alone():
    x = torch.rand(5, 1, 1, requires_grad=True)
    QIF(temporal_gradient=False, dt=1.0)(x)[0][-1].sum().backward()
    assert (x.grad[:-1] == 0).all() and x.grad[-1] != 0


def test_put_replaces_and_lets_the_gate_learn():
    gate = torch.tensor([0.0, 1.0], requires_grad=True)
    out = put(gate, torch.tensor(5.0), torch.tensor([1.0, 2.0]))
    assert out.tolist() == [1.0, 5.0]
    assert torch.autograd.grad(out.sum(), gate)[0].tolist() == [4.0, 3.0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AdEx(tau=0.0), r"AdEx.tau: got 0.0, expected a finite number > 0"),
        (lambda: AdEx(rest=math.nan), r"AdEx.rest: got nan, expected a finite number"),
        (lambda: AdEx(reset=0.0), r"AdEx.reset: got 0.0, expected less than the threshold -30.0"),
        (lambda: AdEx(method="rk5"), r"AdEx.method: got 'rk5'; did you mean 'rk4'\?"),
        (lambda: AdEx(learn=("taau",)), r"AdEx.learn: got 'taau'; did you mean 'tau'\?"),
        (lambda: AdEx(learn=("dt",)), r"AdEx.learn: got 'dt'"),
        (lambda: QIF(dt=-1.0), r"QIF.dt: got -1.0, expected a finite number > 0"),
        (
            lambda: HodgkinHuxley(method="euler"),
            r"HodgkinHuxley.method: got 'euler'; choose from exponential, rk4",
        ),
        (
            lambda: QIF(tau=torch.ones(3), features=2),
            r"QIF.tau: got shape \[3\], expected one number or features \[2\]",
        ),
    ],
)
def test_bad_settings_get_one_line(make, words):
    with pytest.raises(ConfigError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_step_that_is_too_long_is_told():
    with pytest.raises(NonFiniteError, match="left its range: is the step too long"):
        HodgkinHuxley(dt=5.0, method="rk4")(torch.full((50, 1, 1), 10.0))


def test_no_steps_give_no_spikes():
    spikes, state = QIF()(torch.zeros(0, 2, 3))
    assert spikes.shape == (0, 2, 3) and state.membrane.shape == (2, 3)
