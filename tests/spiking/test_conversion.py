from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from neuropil.errors import ConfigError, NonFiniteError, ShapeError
from neuropil.spiking import RateCoded, SpikingReLU, convert_to_spikes


def network():
    return nn.Sequential(
        nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)
    )


def edit(model):
    return convert_to_spikes(model, torch.linspace(-1, 1, 240).view(20, 12), time_steps=16)


def rate_coded():
    return (
        RateCoded(nn.Sequential(nn.Linear(4, 3), SpikingReLU(0.7, 8), nn.Linear(3, 2)), 8),
        torch.randn(5, 4),
        None,
    )


PARTS = [("edit", lambda: (edit, network())), ("module", rate_coded)]


class Residual(nn.Module):
    """A user's own network: a convolution, batch normalisation, a skip, one ReLU used twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
        self.pool, self.out = nn.AvgPool2d(2), nn.Linear(4 * 16, 3)

    def forward(self, x):
        y = self.relu(self.norm(self.conv(x)))
        return self.out(self.pool(self.relu(y + x)).flatten(1))


def test_a_rate_is_the_nearest_number_of_spikes():
    """The closed form: round(T x / scale) spikes, none below zero, T at most."""
    steps, scale = 10, 2.0
    x = torch.linspace(-1, 3, 401)
    got = RateCoded(SpikingReLU(scale, steps), steps)(x[None])[0]
    wanted = (steps * x / scale + 0.5).floor().clamp(0, steps) * scale / steps
    near = (steps * x / scale + 0.5 - (steps * x / scale + 0.5).round()).abs() < 1e-4  # ties of rounding
    torch.testing.assert_close(got[~near], wanted[~near])


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_answer_becomes_the_networks_as_steps_grow(per_channel):
    torch.manual_seed(0)
    model, x = Residual(), torch.randn(40, 1, 8, 8)
    with torch.no_grad():
        model(x)  # statistics of the batch normalisation
    model.eval()
    spiking = convert_to_spikes(model, x, percentile=100.0, per_channel=per_channel)
    with torch.no_grad():
        errors = [
            (spiking.for_steps(steps)(x) - model(x)).abs().mean().item() for steps in (16, 64, 256, 1024)
        ]
    assert errors[0] > 2.5 * errors[1] > 6 * errors[2] > 12 * errors[3], errors
    assert errors[3] < 0.003


def test_a_trained_network_keeps_its_accuracy_on_digits():
    x, y = (torch.from_numpy(each) for each in load_digits(return_X_y=True))
    x, held, y, labels = x[:1200].float() / 16, x[1200:].float() / 16, y[:1200], y[1200:]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        plain = (net(held).argmax(1) == labels).float().mean()
        spiking = (convert_to_spikes(net, x, time_steps=64)(held).argmax(1) == labels).float().mean()
    assert plain > 0.9 and spiking > plain - 0.02


def test_one_outlier_does_not_slow_everybody_down():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))
    x = torch.rand(200, 4)
    loud = x.clone()
    loud[0] = 1000
    errors = []
    for percentile in (100.0, 99.0):
        spiking = convert_to_spikes(net, loud, time_steps=32, percentile=percentile)
        errors.append((spiking(x) - net(x)).abs().mean().item())
    assert errors[1] < 0.2 * errors[0]


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (nn.MaxPool1d(2), "max_pool1d.*average pooling"),
        (nn.Sigmoid(), "calls sigmoid"),
        (nn.LayerNorm(8), "layer_norm.*batch"),
        (nn.GELU(), "gelu"),
    ],
)
def test_what_spikes_cannot_stand_for_is_refused_in_one_line(layer, said):
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), layer)
    with pytest.raises(ConfigError, match=said) as caught:
        convert_to_spikes(model, torch.rand(3, 8))
    assert "\n" not in str(caught.value)


def test_a_relu_that_is_no_module_is_seen():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.relu = nn.Linear(3, 3), nn.ReLU()

        def forward(self, x):
            return functional.relu(self.a(self.relu(x)))

    with pytest.raises(ConfigError, match=r"a module nn\.ReLU for each"):
        convert_to_spikes(Own(), torch.rand(2, 3))


def test_bad_settings_are_refused():
    net = network()
    x = torch.rand(5, 12)
    with pytest.raises(ConfigError, match="percentile"):
        convert_to_spikes(net, x, percentile=0)
    with pytest.raises(ConfigError, match="time_steps"):
        convert_to_spikes(net, x, time_steps=0)
    with pytest.raises(ConfigError, match=r"no nn\.ReLU"):
        convert_to_spikes(nn.Linear(12, 2), x)
    with pytest.raises(NonFiniteError):
        convert_to_spikes(net, x * float("nan"))
    with pytest.raises(ShapeError, match="whole sequences"):
        SpikingReLU(1.0, 4)(torch.rand(5, 2))
