from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from neuropil.continual import HebbianSubspace
from neuropil.kernels.processes import from_first_process, sum_over_processes
from neuropil.kernels.subspace import oja_subspace, project, quantise


def activity(count: int = 256, n: int = 20, seed: int = 0) -> Tensor:
    """Uncentred activity with a spectrum that falls off, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, n, generator=generator, dtype=torch.double) * torch.logspace(0, -1.5, n)
    return x @ torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.double))[0] + 0.1


def rows(m: int, n: int = 20, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, m, generator=generator, dtype=torch.double))[0].mT.contiguous()


def literal(
    h: np.ndarray,
    v: np.ndarray,
    x: np.ndarray,
    lr: float,
    momentum: float,
    iterations: int,
    levels: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The published rule, line by line: excitation, inhibition, Hebb and anti-Hebb, one after the other."""
    for _ in range(iterations):
        y = x @ h.T
        if levels is not None:
            y = np.round(np.clip(y, -20, 20) / 20 * levels) / levels * 20
        returned = y @ h
        hebb = np.einsum("bm,bn->mn", y, x) / len(x)
        anti_hebb = np.einsum("bm,bn->mn", y, -returned) / len(x)
        v = momentum * v + (1 - momentum) * np.clip(hebb + anti_hebb, -10, 10)
        h = h + lr * v
    return h, v


@pytest.mark.parametrize("levels", [None, 40])
@pytest.mark.parametrize("scale", [1.0, 50.0])  # the second reaches the bound on a change
@pytest.mark.parametrize("iterations", [1, 7])
def test_it_is_the_published_rule_step_by_step(levels: int | None, scale: float, iterations: int) -> None:
    x, h = activity() * scale, rows(4)
    v = 0.01 * rows(4, seed=2)
    given = h.clone(), v.clone(), x.clone()
    found = oja_subspace(h, v, x, lr=0.003, momentum=0.9, iterations=iterations, levels=levels)
    expected = literal(h.numpy(), v.numpy(), x.numpy(), 0.003, 0.9, iterations, levels)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-9, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip((h, v, x), given, strict=True))


def test_it_converges_to_the_principal_subspace() -> None:
    x, m = activity(), 5
    h, v = rows(m), torch.zeros(m, 20, dtype=torch.double)
    lr = 2.0 / float(x.square().sum() / len(x))
    for batch in x.split(64) * 40:
        h, v = oja_subspace(h, v, batch, lr=lr)
    singular = np.linalg.svd(x.numpy(), compute_uv=False)
    best = (singular[:m] ** 2).sum()
    orthonormal = torch.linalg.qr(h.mT)[0]
    assert float((x @ orthonormal).square().sum()) > 0.96 * best
    assert float((h @ h.mT - torch.eye(m)).norm()) / m**0.5 < 0.05


def test_a_second_subspace_learns_beside_a_frozen_first() -> None:
    circuit = HebbianSubspace(20, generator=torch.Generator().manual_seed(0))
    circuit.to(torch.zeros(0, dtype=torch.double))
    x = activity()
    for size in (4, 5):
        frozen = circuit.frozen.clone()
        circuit.grow(size)
        for batch in x.split(64) * 40:
            circuit.update(batch)
        assert torch.equal(circuit.frozen, frozen)
        overlap = circuit.growing @ frozen.mT
        assert not overlap.numel() or overlap.abs().max() < 0.01
        circuit.freeze()
    h = circuit.frozen
    assert float((h @ h.mT - torch.eye(9)).norm()) / 3 < 0.05
    best = np.linalg.svd(x.numpy(), compute_uv=False)[:9]
    assert float((x @ torch.linalg.qr(h.mT)[0]).square().sum()) > 0.96 * (best**2).sum()


def test_known_values_of_the_rate_code() -> None:
    y = torch.tensor([0.0, 0.24, 0.26, -0.26, 7.3, 19.9, 99.0, -99.0])
    assert quantise(y, 40).tolist() == [0.0, 0.0, 0.5, -0.5, 7.5, 20.0, 20.0, -20.0]
    assert quantise(y, 1).tolist() == [0.0, 0.0, 0.0, -0.0, 0.0, 20.0, 20.0, -20.0]
    assert quantise(y, 10, span=1.0)[1] == pytest.approx(0.2)
    assert quantise(y, None) is y
    small = y[:6]
    errors = [float((quantise(small, levels) - small).abs().max()) for levels in (40, 400, 4000)]
    assert all(error <= 10 / levels + 1e-6 for error, levels in zip(errors, (40, 400, 4000), strict=True))


def test_projection_is_one() -> None:
    h, x = rows(6), activity(10)
    once = project(x, h)
    torch.testing.assert_close(project(once, h), once)
    torch.testing.assert_close((x - once) @ h.mT, torch.zeros(10, 6, dtype=torch.double))
    assert not project(x, h[:0]).any()


def test_one_process_agrees_with_itself() -> None:
    x = torch.rand(3)
    assert sum_over_processes(x) is x and from_first_process(x) is x
