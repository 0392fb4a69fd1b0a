"""Pictures show what they were given: points, traces, counts and colours are read back from the Axes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn import LIF, AxonalDelay, DelayLinear, Sequential, record
from neuropil.nn.pictures import (
    delay_map,
    membrane_traces,
    phase_portrait,
    raster,
    rate_histogram,
    weight_map,
)

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def seen():
    torch.manual_seed(0)
    net = Sequential(nn.Linear(4, 6), LIF(0.8, 0.5), nn.Linear(6, 3), LIF(0.8, 0.2))
    return record(net, 2 * torch.randn(20, 2, 4))


def test_a_raster_has_a_mark_for_every_spike_layer_above_layer(seen):
    axes = raster(seen, sample=1, dt=0.5)
    first, second = (line for line in axes.lines if line.get_marker() == "|")
    for line, name, floor in ((first, "1", 0), (second, "3", 6)):
        times, neurons = seen.spikes[name][:, 1].nonzero(as_tuple=True)
        np.testing.assert_array_equal(line.get_xdata(), 0.5 * times.numpy())
        np.testing.assert_array_equal(line.get_ydata(), neurons.numpy() + floor)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1", "3"]
    assert axes.get_ylim() == (-0.5, 8.5)
    (only,) = raster(seen, layer="3").lines
    assert len(only.get_xdata()) == int(seen.spikes["3"][:, 0].count_nonzero())


def test_membranes_are_drawn_with_their_spikes_and_threshold(seen):
    axes = membrane_traces(seen, layer="1", neurons=2, threshold=0.5)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), seen.membranes["1"][:, 0, 0])
    fired = [line for line in axes.lines if line.get_marker() == "|"]
    assert [len(line.get_xdata()) for line in fired] == seen.spikes["1"][:, 0, :2].sum(0).tolist()
    assert axes.lines[-1].get_ydata()[0] == 0.5 and axes.get_title() == "1"


def test_rates_are_counted_and_the_silent_named(seen):
    spikes = torch.zeros(10, 2, 4)
    spikes[:, :, 1] = 1
    spikes[::2, :, 2:] = 1
    axes = rate_histogram(spikes, bins=10)
    assert [int(bar.get_height()) for bar in axes.patches] == [1, 0, 0, 0, 0, 2, 0, 0, 0, 1]
    assert "1 of 4 silent, 1 saturated" in axes.get_legend().get_texts()[0].get_text()
    assert len(rate_histogram(seen).get_legend().get_texts()) == 2


def test_weights_keep_their_values_and_their_sign():
    layer = nn.Linear(5, 3)
    image = weight_map(layer).images[0]
    np.testing.assert_allclose(image.get_array(), layer.weight.detach().numpy(), rtol=1e-6)
    assert image.norm.vmin == -image.norm.vmax
    kernels = nn.Conv2d(2, 3, (2, 4))
    tiles = weight_map(kernels).images[0].get_array()
    assert tiles.shape == (3 * 3 - 1, 2 * 5 - 1)
    np.testing.assert_allclose(tiles[3:5, 5:9], kernels.weight[1, 1].detach().numpy(), rtol=1e-6)
    assert tiles[2].mask.all() or np.isnan(np.asarray(tiles[2], float)).all(), "a gap between kernels"


def test_delays_of_connections_and_of_neurons():
    layer = DelayLinear(3, 2, longest=4)
    np.testing.assert_array_equal(delay_map(layer).images[0].get_array(), layer.delays)
    axon = delay_map(AxonalDelay(torch.tensor([0, 5, 2])), dt=0.1)
    np.testing.assert_allclose(axon.images[0].get_array(), [[0.0, 0.5, 0.2]])


def test_a_phase_portrait_has_trajectories_flow_and_nullclines():
    t = torch.linspace(0, 6, 40)
    paths = torch.stack([t.cos(), 0.5 * t.cos()], 1), torch.stack([t.sin(), 0.5 * t.sin()], 1)
    axes = phase_portrait(*paths, derivative=lambda x, y: (-y, x), points=9)
    np.testing.assert_allclose(axes.lines[2].get_ydata(), 0.5 * t.sin(), rtol=1e-6)
    quiver, *nullclines = axes.collections
    arrows = np.stack([quiver.U, quiver.V], 1)
    places = quiver.get_offsets()
    np.testing.assert_allclose(
        (arrows * places).sum(1), 0, atol=1e-6
    )  # a rotation is at right angles to its place
    assert len(nullclines) == 2
    assert abs(nullclines[0].get_paths()[0].vertices[:, 1]).max() < 1e-6  # x stands still where y is zero


def test_pictures_are_drawn_where_one_wants_them():
    axes = raster(torch.eye(3))
    assert membrane_traces(torch.randn(5, 2), axes=axes) is axes


def test_what_cannot_be_drawn_is_told_in_one_line(seen):
    for draw, error, said in (
        (lambda: raster(seen, layer="11"), ConfigError, "did you mean '1'"),
        (lambda: raster(torch.zeros(3)), ShapeError, r"expected \[time"),
        (lambda: raster(torch.zeros(3, 1, 2), sample=4), ShapeError, "batch of 1"),
        (lambda: membrane_traces(record(nn.Linear(2, 2), torch.zeros(1, 2))), ConfigError, "no membranes"),
        (lambda: membrane_traces(seen, neurons=0), ConfigError, "neurons"),
        (lambda: rate_histogram(torch.zeros(3)), ShapeError, "expected"),
        (lambda: weight_map(nn.ReLU()), ConfigError, "ReLU has no weight"),
        (lambda: weight_map(torch.zeros(3)), ShapeError, "expected"),
        (lambda: delay_map(nn.Linear(1, 1)), ConfigError, "no delays or steps"),
        (lambda: delay_map(torch.zeros(1, 1, 1)), ShapeError, "expected"),
        (lambda: phase_portrait(torch.zeros(3), torch.zeros(4)), ShapeError, "expected both"),
    ):
        with pytest.raises(error, match=said) as caught:
            draw()
        assert "\n" not in str(caught.value)
