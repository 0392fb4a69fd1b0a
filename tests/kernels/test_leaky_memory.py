from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from neuropil.errors import ShapeError
from neuropil.kernels.compiled import HAS_NUMBA
from neuropil.kernels.leaky_memory import leaky_memory_reference, leaky_memory_scan

NAMES = ("x", "memory", "look", "look_bias", "write", "write_bias", "keep", "gain")


def arguments(steps=9, batch=5, inputs=2, units=6, m=3, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = (steps, batch, inputs), (batch, m), (units, inputs + m), (units,), (m, units), (m,)
    tensors = [torch.randn(*shape, generator=g, dtype=dtype) for shape in shapes]
    tensors += [torch.rand(m, generator=g, dtype=dtype) for _ in range(2)]  # keep, gain
    return [tensor.requires_grad_() for tensor in tensors]


@pytest.mark.skipif(not HAS_NUMBA, reason="the reference serves")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("steps", "batch", "inputs", "units", "m"),
    [
        (9, 5, 2, 6, 3),
        (1, 1, 1, 1, 1),
        (20, 8, 28, 130, 70),
        (5, 4, 3, 64, 64),
        (39, 3, 17, 16, 33),
        (3, 70, 4, 5, 2),
    ],
)
def test_the_kernel_is_the_equations_with_all_gradients(steps, batch, inputs, units, m, dtype):
    given = arguments(steps, batch, inputs, units, m, dtype)
    with torch.no_grad():
        given[2] /= m
        given[4] /= units
    g = torch.randn(steps, batch, m, dtype=dtype, generator=torch.Generator().manual_seed(1))
    found, wanted = leaky_memory_scan(*given), leaky_memory_reference(*given)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    assert_close(found, wanted, **tolerance)
    gradients = [torch.autograd.grad(y, given, g) for y in (found, wanted)]
    for name, one, two in zip(NAMES, *gradients, strict=True):
        assert_close(one, two, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


def test_gradients_are_derivatives():
    assert torch.autograd.gradcheck(leaky_memory_scan, arguments(4, 2, 2, 3, 2))


def test_an_input_that_needs_no_gradient_gets_none():
    given = arguments()
    wanted = torch.autograd.grad(leaky_memory_scan(*given).square().sum(), given[1:])
    given[0] = given[0].detach()
    found = torch.autograd.grad(leaky_memory_scan(*given).square().sum(), given[1:])
    assert_close(found, wanted, rtol=0, atol=0)


def test_without_writing_a_memory_decays():
    x, memory, look, look_bias, write, write_bias, keep, gain = arguments()
    y = leaky_memory_scan(x, memory, look, look_bias, 0 * write, 0 * write_bias, keep, gain)
    powers = keep ** torch.arange(1, 10, dtype=torch.float64).view(-1, 1, 1)
    assert_close(y, powers * memory)


def test_what_does_not_fit_gets_one_line():
    x, memory, *others = arguments()
    with pytest.raises(ShapeError, match=r"leaky_memory_scan: x \[9, 5, 2\]") as caught:
        leaky_memory_scan(x, memory[:, :2], *others)
    assert "\n" not in str(caught.value)
