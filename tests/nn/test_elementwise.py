from __future__ import annotations

import pytest
import torch

from neuropil.errors import ConfigError, NonFiniteError
from neuropil.nn.elementwise import Heaviside, Scale
from neuropil.nn.surrogate import Triangle


def scale():
    return Scale(torch.tensor([0.5, -2.0, 3.0]), learn=True), torch.randn(4, 3)


def heaviside():
    return Heaviside(0.3), torch.randn(4, 3)


PARTS = [("module", scale), ("module", heaviside)]


def test_the_step_has_its_surrogates_gradient():
    x = torch.tensor([0.2, 0.5, 0.9], requires_grad=True)
    y = Heaviside(0.5, surrogate=Triangle())(x)
    y.sum().backward()
    assert y.tolist() == [0.0, 1.0, 1.0]
    torch.testing.assert_close(x.grad, Triangle().derivative(x.detach() - 0.5))


def test_bad_numbers_are_refused():
    with pytest.raises(ConfigError, match="finite"):
        Scale(float("inf"))
    with pytest.raises(NonFiniteError):
        Heaviside()(torch.tensor([float("nan")]))
