from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from neuropil.errors import ShapeError
from neuropil.kernels.compiled import HAS_NUMBA
from neuropil.kernels.leaky_memory import leaky_memory_reference, leaky_memory_scan

NAMES = ("drive", "memory", "read", "write", "bias", "keep", "gain")


def arguments(steps=9, batch=5, units=6, m=3, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    drive, memory, read, write, bias = (
        torch.randn(*shape, generator=g, dtype=dtype)
        for shape in ((steps, batch, units), (batch, m), (units, m), (m, units), (m,))
    )
    keep, gain = (torch.rand(m, generator=g, dtype=dtype) for _ in range(2))
    return [tensor.requires_grad_() for tensor in (drive, memory, read, write, bias, keep, gain)]


@pytest.mark.skipif(not HAS_NUMBA, reason="the reference serves")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("steps", "batch", "units", "m"),
    [(9, 5, 6, 3), (1, 1, 1, 1), (20, 8, 130, 70), (5, 4, 64, 64), (7, 3, 16, 33)],
)
def test_the_kernel_is_the_equations_with_all_gradients(steps, batch, units, m, dtype):
    given = arguments(steps, batch, units, m, dtype)
    with torch.no_grad():
        given[2] /= m
        given[3] /= units
    g = torch.randn(steps, batch, m, dtype=dtype, generator=torch.Generator().manual_seed(1))
    found, wanted = leaky_memory_scan(*given), leaky_memory_reference(*given)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    assert_close(found, wanted, **tolerance)
    gradients = [torch.autograd.grad(y, given, g) for y in (found, wanted)]
    for name, one, two in zip(NAMES, *gradients, strict=True):
        assert_close(one, two, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


def test_gradients_are_derivatives():
    assert torch.autograd.gradcheck(leaky_memory_scan, arguments(4, 2, 3, 2))


def test_without_writing_a_memory_decays():
    drive, memory, read, write, bias, keep, gain = arguments()
    y = leaky_memory_scan(drive, memory, read, 0 * write, 0 * bias, keep, gain)
    powers = keep ** torch.arange(1, 10, dtype=torch.float64).view(-1, 1, 1)
    assert_close(y, powers * memory)


def test_what_does_not_fit_gets_one_line():
    drive, memory, read, *others = arguments()
    with pytest.raises(ShapeError, match=r"leaky_memory_scan: drive \[9, 5, 6\]") as caught:
        leaky_memory_scan(drive, memory[:, :2], read, *others)
    assert "\n" not in str(caught.value)
