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
@pytest.mark.parametrize("class_wise", [False, True])
def test_noise_stays_in_its_bounds(fraction: float | None, class_wise: bool) -> None:
    data = images()
    noise = error_minimizing_noise(
        net(), data, eps=0.15, pixel_fraction=fraction, class_wise=class_wise, rounds=4, generator=generator()
    )
    guarded = unlearnable(data, noise)
    assert bool((noise.abs() <= 0.15).all()) and bool((guarded.noise.abs() <= 0.15 + 1e-6).all())
    assert bool(((guarded.inputs >= 0) & (guarded.inputs <= 1)).all())


@pytest.mark.parametrize("rounds", [1, 6])
def test_no_image_is_changed_on_more_pixels_than_the_mask_has(rounds: int) -> None:
    data = images()
    noise = error_minimizing_noise(
        net(), data, eps=0.1, pixel_fraction=0.25, rounds=rounds, generator=generator()
    )
    changed = (noise != 0).flatten(1).sum(1)
    assert int(changed.max()) == 9 and int(changed.min()) > 0
    assert torch.equal(unlearnable(data, noise).inputs[noise == 0], data.tensors[0][noise == 0])


@pytest.mark.parametrize("fraction", [0.3, None])
def test_noised_samples_are_easier_for_a_surrogate_that_never_learned(fraction: float | None) -> None:
    """With a rate of zero the noise goes down the loss of the very network given."""
    model, data = net(), images()
    noise = error_minimizing_noise(
        model, data, eps=0.2, pixel_fraction=fraction, rounds=3,
        make_optimizer=partial(torch.optim.SGD, lr=0.0), generator=generator(),
    )  # fmt: skip
    x, y = data.tensors
    with torch.no_grad():
        plain = functional.cross_entropy(model(x), y, reduction="none")
        eased = functional.cross_entropy(model(unlearnable(data, noise).inputs), y, reduction="none")
    assert bool((eased < plain).all())


def test_fewer_pixels_ease_the_task_less_and_are_less_noise() -> None:
    model, data = net(), images()
    still = partial(torch.optim.SGD, lr=0.0)
    sizes, losses = [], []
    for fraction in (0.1, 0.4, None):
        noise = error_minimizing_noise(
            model, data, pixel_fraction=fraction, eps=0.2, rounds=1, make_optimizer=still
        )
        sizes.append(float(noise.abs().mean()))
        with torch.no_grad():
            losses.append(float(functional.cross_entropy(model(data.tensors[0] + noise), data.tensors[1])))
    assert sizes == sorted(sizes) and losses == sorted(losses, reverse=True)


def test_a_class_shares_its_noise() -> None:
    data = images()
    noise = error_minimizing_noise(
        net(), data, eps=0.1, class_wise=True, pixel_fraction=0.25, rounds=3, generator=generator()
    )
    for kind in range(KINDS):
        mine = noise[data.tensors[1] == kind]
        assert torch.equal(mine, mine[:1].expand_as(mine)) and 0 < int((mine[0] != 0).sum()) <= 9


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


def test_hidden_noise_comes_back_when_its_pixels_are_chosen_again() -> None:
    """The mask decides what is shown; what pixels gathered while they were shown is kept, so eps is reached."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    data = TensorDataset(torch.full((6, 1, 2, 2), 0.5), torch.arange(6) % 2)
    noise = error_minimizing_noise(
        model, data, eps=0.1, pixel_fraction=0.5, rounds=4, make_optimizer=partial(torch.optim.SGD, lr=0.0)
    )
    weight = model[1].weight.detach()
    difference = weight[0] - weight[1]
    largest = difference.abs().topk(2).indices
    expected = torch.zeros(4)
    expected[largest] = 0.1 * difference[largest].sign()
    torch.testing.assert_close(noise[0].flatten(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(noise[1].flatten(), -expected, atol=1e-6, rtol=0)


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
    with pytest.raises(DataError, match="no samples"):
        error_minimizing_noise(net(), images(0))
    with pytest.raises(DataError, match="expected the same"):
        unlearnable(data, torch.zeros(8, 3))
    with pytest.raises(NonFiniteError, match="lower its rate"):
        error_minimizing_noise(net(), data, make_optimizer=partial(torch.optim.SGD, lr=1e20))
