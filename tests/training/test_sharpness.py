from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from neuropil.errors import ConfigError, NonFiniteError
from neuropil.nn import LIF, RateReadout, Sequential
from neuropil.training import hessian_sharpness


def pairs(rows: int = 20) -> TensorDataset:
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, torch.arange(rows) % 3)


def analysis() -> partial[object]:
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    return partial(hessian_sharpness, net, pairs(), iterations=3, generator=torch.Generator().manual_seed(1))


PARTS = [("analysis", analysis)]


def test_it_is_the_largest_eigenvalue_of_least_squares() -> None:
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(3)).double()
    net = nn.Linear(6, 1, bias=False).double()
    data = TensorDataset(x, torch.zeros(30, 1).double())
    found = hessian_sharpness(net, data, iterations=200, loss=functional.mse_loss, batch_size=7)
    values, vectors = torch.linalg.eigh(2 * x.T @ x / 30)
    assert found.eigenvalue == pytest.approx(float(values[-1]), rel=1e-6)
    assert float((found.direction["weight"][0] @ vectors[:, -1]).abs()) == pytest.approx(1.0, abs=1e-5)
    assert found.residual < 1e-3


def test_it_is_that_of_the_exact_hessian_of_a_network() -> None:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = pairs()[:]
    x = x.double()
    names, shapes = zip(*((name, p.shape) for name, p in net.named_parameters()), strict=True)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        values = flat.split([shape.numel() for shape in shapes])
        given = {name: v.view(shape) for name, v, shape in zip(names, values, shapes, strict=True)}
        return functional.cross_entropy(torch.func.functional_call(net, given, (x,)), y)

    flat = torch.cat([p.detach().flatten() for p in net.parameters()])
    exact = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))
    found = hessian_sharpness(net, TensorDataset(x, y), iterations=300, step=1e-4)
    assert found.eigenvalue == pytest.approx(float(exact[exact.abs().argmax()]), rel=1e-4)


def test_a_spiking_network_is_served_and_left_as_it_was() -> None:
    torch.manual_seed(0)
    net = Sequential(nn.Linear(4, 16), LIF(), nn.Linear(16, 3), RateReadout(), time_steps=4)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = hessian_sharpness(net, pairs(), step=0.03, iterations=5)
    assert found.eigenvalue > 0 and len(found.trace) == 5
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training and all(p.grad is None for p in net.parameters())


def test_a_flat_loss_has_no_sharpness() -> None:
    net = nn.Linear(4, 3)
    found = hessian_sharpness(net, pairs(), loss=lambda output, _: output.sum() * 0)
    assert (found.eigenvalue, found.residual, len(found.trace)) == (0.0, 0.0, 1)


def test_nonsense_is_refused() -> None:
    net = nn.Linear(4, 3)
    with pytest.raises(ConfigError, match="iterations 0"):
        hessian_sharpness(net, pairs(), iterations=0)
    with pytest.raises(ConfigError, match="step nan"):
        hessian_sharpness(net, pairs(), step=float("nan"))
    with pytest.raises(ConfigError, match="no parameter"):
        hessian_sharpness(nn.Identity(), pairs())
    with pytest.raises(NonFiniteError, match="'weight'"):
        hessian_sharpness(net, pairs(), loss=lambda output, _: output.sum() * float("nan"))
