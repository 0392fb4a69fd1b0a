from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn import soft_hebb_step, soft_hebbian_change


def test_the_rule_by_loops_in_numpy() -> None:
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(3, 5)), rng.normal(size=(7, 5))
    expected = np.zeros_like(w)
    for sample in x:
        u = [sum(w[k, i] * sample[i] for i in range(5)) for k in range(3)]
        share = np.exp(np.array(u) / 0.7) / sum(np.exp(np.array(u) / 0.7))
        for k in range(3):
            expected[k] += share[k] * (sample - u[k] * w[k]) / 7
    change = soft_hebbian_change(torch.from_numpy(w), torch.from_numpy(x), temperature=0.7)
    np.testing.assert_allclose(change.numpy(), expected, atol=1e-12)


def test_one_unit_settles_at_the_direction_of_the_mean() -> None:
    """Alone it has the whole share: E[x] = (w E[x]) w has the solution w = E[x] / |E[x]|."""
    x = torch.rand(50, 6, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    w = torch.full((1, 6), 0.1, dtype=torch.double)
    for _ in range(2000):
        w = w + 0.1 * soft_hebbian_change(w, x)
    torch.testing.assert_close(w[0], x.mean(0) / x.mean(0).norm())


def test_units_come_to_share_the_clusters() -> None:
    generator = torch.Generator().manual_seed(1)
    centres = torch.eye(3, 8) * 2
    x = centres[torch.arange(300) % 3] + 0.1 * torch.randn(300, 8, generator=generator)
    w = 0.3 * torch.rand(3, 8, generator=generator)
    for _ in range(800):
        w = w + 0.1 * soft_hebbian_change(w, x, temperature=0.2)
    alike = nn.functional.normalize(w) @ nn.functional.normalize(centres).mT
    assert sorted(alike.argmax(1).tolist()) == [0, 1, 2] and alike.amax(1).min() > 0.95
    assert (w.norm(dim=1) - 1).abs().max() < 0.1  # the decay holds the norm


def test_a_convolution_learns_from_its_patches() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 4, 3, padding=1, stride=2)
    before, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    x = torch.rand(3, 2, 6, 6)
    patches = nn.functional.unfold(x, 3, padding=1, stride=2).mT.reshape(-1, 18)
    soft_hebb_step(layer, x, rate=0.5, temperature=0.3)
    expected = before.flatten(1) + 0.5 * soft_hebbian_change(before.flatten(1), patches, temperature=0.3)
    torch.testing.assert_close(layer.weight.detach().flatten(1), expected)
    assert torch.equal(layer.bias, bias) and layer.weight.requires_grad and layer.weight.grad is None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="units, inputs"):
        soft_hebbian_change(torch.zeros(2, 3), torch.zeros(4, 2))
    with pytest.raises(ConfigError, match="temperature"):
        soft_hebbian_change(torch.zeros(2, 3), torch.zeros(4, 3), temperature=0.0)
