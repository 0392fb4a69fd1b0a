"""The liquid against its equations, the devices against their distributions, the loss against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from neuropil.errors import ConfigError, LabelError, ShapeError, StateError
from neuropil.nn import CountReadout, Sequential
from neuropil.spiking import (
    ContrastiveProjection,
    PairedContrastiveLoss,
    ResistiveLiquid,
    ResistiveWeight,
    random_conductances,
    zero_shot,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spikes(
    steps: int = 12, batch: int = 5, inputs: int = 6, rate: float = 0.4, seed: int = 0
) -> torch.Tensor:
    return (torch.rand(steps, batch, inputs, generator=seeded(seed)) < rate).float()


def liquid(**changes):
    settings = {"scale": 1.0, "recurrent_scale": 0.5, "threshold": 1.5, **changes}
    return ResistiveLiquid(
        6, 8, generator=torch.Generator().manual_seed(torch.initial_seed()), **settings
    ), spikes()


def coarse_liquid():
    return liquid(adc_bits=5, distribution="normal")


def liquid_with_head():
    return Sequential(liquid()[0], CountReadout(), nn.Linear(8, 3)), spikes()


def projection():
    return ContrastiveProjection(6, 4), torch.randn(5, 6)


def loss():
    return PairedContrastiveLoss(0.5), (torch.randn(5, 4), torch.randn(5, 4))


def array():
    layer = nn.Linear(7, 5)
    return layer, ResistiveWeight(
        (5, 7), p_on=0.8, generator=torch.Generator().manual_seed(torch.initial_seed())
    )


def array_of_kernels():
    layer = nn.Conv2d(2, 4, 3)
    generator = torch.Generator().manual_seed(torch.initial_seed())
    return layer, ResistiveWeight(layer.weight.shape, distribution="normal", spread=0.3, generator=generator)


PARTS = [
    *(("module", make) for make in (liquid, coarse_liquid, liquid_with_head, projection, loss)),
    *(("parametrization", make) for make in (array, array_of_kernels)),
]


def by_hand(x, weight, recurrent, decay, threshold, adc=lambda current: current):
    """The recursion as it reads, in numpy."""
    m, s, found = np.zeros((x.shape[1], len(weight))), np.zeros((x.shape[1], len(weight))), []
    for now in x:
        m = decay * m * (1 - s) + adc(now @ weight.T + s @ recurrent.T)
        s = (m >= threshold).astype(float)
        found.append(s)
    return np.stack(found)


@pytest.mark.parametrize("bits", [None, 4])
def test_the_liquid_follows_its_equation(bits):
    model = liquid(adc_bits=bits, adc_range=4.0, decay=0.8)[0].double()
    x = spikes(40).double()
    adc = (lambda c: np.clip(np.round(c / 0.5), -8, 7) * 0.5) if bits else (lambda c: c)
    expected = by_hand(x.numpy(), model.weight.numpy(), model.recurrent.numpy(), 0.8, 1.5, adc)
    assert np.array_equal(model(x)[0].numpy(), expected)
    assert 0.05 < expected.mean() < 0.6


def test_a_spike_empties_the_membrane():
    model = ResistiveLiquid(1, 1, scale=1.0, recurrent_scale=0.0, decay=1.0, threshold=2.0, p_on=1.0)
    model.weight.fill_(0.9)
    model.recurrent.zero_()
    assert model(torch.ones(8, 1, 1))[0].flatten().tolist() == [0, 0, 1, 0, 0, 1, 0, 0]


def test_nothing_of_the_liquid_learns():
    model, x = liquid_with_head()
    assert [name for name, _ in model.named_parameters()] == ["2.weight", "2.bias"]
    x.requires_grad_()
    model(x).sum().backward()
    assert x.grad is None and model[2].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("distribution", ["lognormal", "normal"])
def test_formed_devices_have_the_moments_asked_for(distribution):
    pair = random_conductances(
        (400, 500), p_on=0.3, spread=0.2, distribution=distribution, generator=seeded()
    )
    for devices in pair:
        formed = devices[devices > 0]
        assert len(formed) / devices.numel() == pytest.approx(0.3, abs=0.005)
        assert formed.mean() == pytest.approx(1, abs=0.005)
        wanted = 0.2 if distribution == "normal" else math.sqrt(math.exp(0.04) - 1)
        assert formed.std() == pytest.approx(wanted, abs=0.005)
    assert abs(torch.corrcoef(torch.stack([each.flatten() for each in pair]))[0, 1]) < 0.01


def test_weights_have_the_scale_asked_for():
    model = ResistiveLiquid(300, 200, scale=0.7, recurrent_scale=0.2, generator=seeded())
    assert model.weight.std(correction=0).item() == pytest.approx(0.7, rel=1e-5)
    assert model.recurrent.std(correction=0).item() == pytest.approx(0.2, rel=1e-5)
    assert (model.weight == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)  # both devices dead


def test_noise_of_the_sum_is_that_of_all_devices_read_one_by_one():
    noisy = ResistiveLiquid(6, 8, scale=1.0, recurrent_scale=0.5, read_noise=0.1, generator=seeded())
    x, s = spikes(1, 1)[0], spikes(1, 1, 8, seed=1)[0]
    many = noisy._read(torch.zeros(20000, 8), x.expand(20000, -1), s.expand(20000, -1))
    again = ResistiveLiquid(6, 8, scale=1.0, recurrent_scale=0.5, generator=seeded())
    generator = seeded()  # the same devices, drawn again
    total = torch.zeros(20000, 8)
    draw = seeded(5)
    for shape, weight, active in (((8, 6), again.weight, x), ((8, 8), again.recurrent, s)):
        pair = random_conductances(shape, generator=generator)
        factor = weight.std(correction=0) / (pair.plus - pair.minus).std(correction=0)
        torch.testing.assert_close(factor * (pair.plus - pair.minus), weight)
        for devices in pair:
            errors = torch.randn(20000, *shape, generator=draw) * 0.1 * factor * devices
            total += torch.einsum("nij,j->ni", errors, active[0])
    torch.testing.assert_close(many.std(0), total.std(0), rtol=0.03, atol=0)
    assert many.mean(0).abs().max() < 0.02


def test_noise_changes_some_spikes_and_follows_the_generator():
    x = spikes(60)
    clean, noisy, same = (
        ResistiveLiquid(6, 50, scale=1.0, threshold=1.5, read_noise=noise, generator=seeded())(x)[0]
        for noise in (0.0, 0.1, 0.1)
    )
    assert torch.equal(noisy, same) and 0.001 < (clean != noisy).float().mean() < 0.2


def test_an_array_holds_each_weight_with_the_gain_of_its_own_device():
    layer = nn.Linear(40, 30)
    written = layer.weight.detach().clone()
    worn = ResistiveWeight((30, 40), p_on=0.9, spread=0.2, generator=seeded())
    parametrize.register_parametrization(layer, "weight", worn)
    pair = random_conductances((30, 40), p_on=0.9, spread=0.2, generator=seeded())
    torch.testing.assert_close(layer.weight, torch.where(written > 0, pair.plus, pair.minus) * written)
    perfect = ResistiveWeight((30, 40), spread=0.0)
    torch.testing.assert_close(perfect(written), written)


def test_reading_an_array_carries_noise_in_proportion():
    worn = ResistiveWeight((2, 3), spread=0.0, read_noise=0.05, generator=seeded())
    raw = torch.tensor([[1.0, -2.0, 0.0], [4.0, 0.5, -0.1]])
    reads = torch.stack([worn(raw) for _ in range(4000)])
    torch.testing.assert_close(reads.mean(0), raw, rtol=0.01, atol=1e-6)
    torch.testing.assert_close(reads.std(0), 0.05 * raw.abs(), rtol=0.05, atol=1e-6)


def test_a_model_learns_on_the_array_that_it_runs_on():
    torch.manual_seed(0)
    x = torch.randn(200, 10)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 2))
    for layer in (model[0], model[2]):
        worn = ResistiveWeight(layer.weight.shape, p_on=0.8, spread=0.4, read_noise=0.05, generator=seeded())
        parametrize.register_parametrization(layer, "weight", worn)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert (model(x).argmax(1) == y).float().mean() > 0.95


def test_the_loss_is_its_closed_form():
    """Unit vectors, partners alike and others orthogonal: log(1 + (n - 1) e^(-1 / temperature)) both ways."""
    assert PairedContrastiveLoss(0.7)(torch.eye(4), torch.eye(4)).item() == pytest.approx(
        math.log(1 + 3 * math.exp(-1 / 0.7)), rel=1e-6
    )
    uniform = torch.ones(6, 2) / 2**0.5
    assert PairedContrastiveLoss()(uniform, uniform).item() == pytest.approx(math.log(6), rel=1e-6)
    a, b = torch.randn(5, 3, generator=seeded()), torch.randn(5, 3, generator=seeded(1))
    assert PairedContrastiveLoss()(a, b).item() == pytest.approx(
        PairedContrastiveLoss()(b, a).item(), rel=1e-6
    )


def test_queries_go_to_the_nearest_mean_by_angle():
    support = torch.tensor([[1.0, 0.0], [1.0, 0.2], [0.0, 9.0], [0.1, 9.0]])
    labels = torch.tensor([8, 8, 3, 3])
    queries = torch.tensor([[5.0, 1.0], [0.1, 0.3], [1.0, 1.2]])
    assert zero_shot(queries, support, labels).tolist() == [8, 3, 3]
    with pytest.raises(LabelError):
        zero_shot(queries, support, labels[:2])


def test_rows_of_a_projection_have_length_one():
    head, x = projection()
    torch.testing.assert_close(head(x).norm(dim=1), torch.ones(5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResistiveLiquid(0, 5), "in_features"),
        (lambda: ResistiveLiquid(5, 5, scale=-1.0), "scale"),
        (lambda: ResistiveLiquid(5, 5, threshold=0.0), "threshold"),
        (lambda: ResistiveLiquid(5, 5, decay=1.5), "decay"),
        (lambda: ResistiveLiquid(5, 5, adc_bits=0), "adc_bits"),
        (lambda: ResistiveLiquid(5, 5, adc_range=math.nan), "adc_range"),
        (lambda: ResistiveWeight((2, 2), p_on=0.0), "p_on"),
        (lambda: ResistiveWeight((2, 2), read_noise=-1), "read_noise"),
        (lambda: random_conductances((2, 2), spread=math.inf), "spread"),
        (lambda: random_conductances((2, 2), distribution="lognormale"), "did you mean 'lognormal'"),
        (lambda: PairedContrastiveLoss(0.0), "temperature"),
    ],
)
def test_a_setting_out_of_range_is_one_line(make, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_shapes_that_do_not_fit_are_one_line():
    model, x = liquid()
    with pytest.raises(ShapeError, match="expected \\[time, batch, 6\\]"):
        model(x[..., :4])
    with pytest.raises(StateError, match="start at rest"):
        model(x, model.initial_state(x[:, :2]))
    with pytest.raises(ShapeError, match="the array"):
        ResistiveWeight((2, 3))(torch.zeros(3, 2))
    with pytest.raises(ShapeError, match="pairs, features"):
        PairedContrastiveLoss()(torch.zeros(2, 3), torch.zeros(3, 3))
