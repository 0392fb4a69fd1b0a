from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from neuropil.editing import (
    SparsityAwareMask,
    error_minimizing_noise,
    finetuned,
    forgetting_scores,
    unlearnable,
)
from neuropil.errors import ConfigError, DataError, NonFiniteError
from tests.editing.forgetting import generator

SIDE, KINDS = 6, 4


def images(count: int = 120, seed: int = 0) -> TensorDataset:
    """Sparse images whose class is a faint pattern in noise."""
    patterns = (torch.rand(KINDS, 1, SIDE, SIDE, generator=generator(9)) > 0.6).float()
    labels = torch.arange(count) % KINDS
    noise = torch.rand(count, 1, SIDE, SIDE, generator=generator(seed))
    return TensorDataset((0.35 * patterns[labels] + 0.6 * noise).clamp(0, 1), labels)


def net(seed: int = 0, width: int = 32) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, width), nn.ReLU(), nn.Linear(width, KINDS))


SURROGATE = net()


def protected(seed: int, fraction: float | None) -> Any:
    data = images()
    noise = error_minimizing_noise(
        SURROGATE, data, eps=0.1, pixel_fraction=fraction, rounds=2, generator=generator(seed)
    )
    return unlearnable(data, noise)


def source(fraction: float | None) -> Any:
    return partial(protected, fraction=fraction)


PARTS = [("source", partial(source, 0.3)), ("source", partial(source, None))]


@pytest.mark.parametrize("fraction", [0.25, None])
def test_noise_stays_in_its_bounds_and_makes_the_surrogates_task_easier(fraction: float | None) -> None:
    data = images()
    noise = error_minimizing_noise(
        net(), data, eps=0.15, pixel_fraction=fraction, rounds=8, generator=generator()
    )
    x, y = data.tensors
    assert bool((noise.abs() <= 0.15).all()) and bool(
        ((x + noise) >= -1e-6).all() & ((x + noise) <= 1 + 1e-6).all()
    )
    guarded = unlearnable(data, noise)
    trained = finetuned(net(1), guarded, epochs=10, generator=generator())
    plain = finetuned(net(1), data, epochs=10, generator=generator())
    with torch.no_grad():
        easy = functional.cross_entropy(trained(guarded.inputs), y)
        hard = functional.cross_entropy(plain(x), y)
    assert easy < hard


def test_what_learned_protected_images_knows_less_of_clean_ones() -> None:
    data, test = images(), images(200, 1)
    noise = error_minimizing_noise(
        net(), data, eps=0.3, pixel_fraction=None, rounds=12, generator=generator()
    )
    adam = partial(torch.optim.Adam, lr=3e-3)
    guarded, plain = (
        finetuned(net(5, 48), part, epochs=20, generator=generator(), make_optimizer=adam)
        for part in (unlearnable(data, noise), data)
    )
    after, before = (forgetting_scores(model, test, test).retain_accuracy for model in (guarded, plain))
    assert before > 0.8 and after < before - 0.1


def test_one_round_touches_no_more_pixels_than_the_mask_has() -> None:
    noise = error_minimizing_noise(
        net(), images(), eps=0.1, pixel_fraction=0.25, rounds=1, generator=generator()
    )
    assert int((noise != 0).flatten(1).sum(1).max()) <= 9
    everywhere = error_minimizing_noise(
        net(), images(), eps=0.1, pixel_fraction=None, rounds=1, generator=generator()
    )
    assert everywhere.abs().mean() > 2 * noise.abs().mean()


def test_a_step_against_a_linear_surrogate_by_hand() -> None:
    """Without training the noise of a linear model is the sign of its gradient, times steps of a tenth of eps."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    data = TensorDataset(torch.full((6, 1, 2, 2), 0.5), torch.arange(6) % 2)
    still = partial(torch.optim.SGD, lr=0.0)
    noise = error_minimizing_noise(
        model, data, eps=0.1, pixel_fraction=None, rounds=1, noise_steps=3, make_optimizer=still
    )
    weight = model[1].weight.detach()
    direction = torch.where(data.tensors[1][:, None] == 0, weight[0] - weight[1], weight[1] - weight[0])
    torch.testing.assert_close(noise.flatten(1), 0.03 * direction.sign(), atol=1e-6, rtol=0)


def test_the_mask_takes_the_largest() -> None:
    gradient = torch.randn(5, 1, 4, 4, generator=generator())
    mask = SparsityAwareMask(0.25)(gradient)
    assert torch.equal(mask.flatten(1).sum(1), torch.full((5,), 4.0))
    for image, chosen in zip(gradient.abs(), mask.bool(), strict=True):
        assert image[chosen].min() > image[~chosen].max()


def test_the_surrogate_stays_as_it_is_and_the_seed_decides() -> None:
    model, data = net(), images()
    before = [p.clone() for p in model.parameters()]
    first, second, other = (
        error_minimizing_noise(model, data, eps=0.1, rounds=2, generator=generator(seed))
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_what_is_refused() -> None:
    data = images(8)
    with pytest.raises(ConfigError, match="eps is 0"):
        error_minimizing_noise(net(), data, eps=0)
    with pytest.raises(ConfigError, match="fraction is 2"):
        error_minimizing_noise(net(), data, pixel_fraction=2.0)
    with pytest.raises(ConfigError, match="at least 1"):
        error_minimizing_noise(net(), data, rounds=0)
    with pytest.raises(DataError, match="outside"):
        error_minimizing_noise(net(), TensorDataset(2 + data.tensors[0], data.tensors[1]))
    with pytest.raises(DataError, match="expected the same"):
        unlearnable(data, torch.zeros(8, 3))
    with pytest.raises(NonFiniteError, match="lower its rate"):
        error_minimizing_noise(net(), data, make_optimizer=partial(torch.optim.SGD, lr=1e20))
