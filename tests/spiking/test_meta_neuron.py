"""Neurons that learn their own constants: against their equations, and against Izhikevich's neuron."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from neuropil.errors import ConfigError, DataError, LabelError, ShapeError
from neuropil.nn import Izhikevich, RateReadout, Sequential
from neuropil.nn.cell import SpikingCell
from neuropil.spiking import LempelZivClassifier, MetaNeuron, ParametricLIF
from neuropil.spiking.lempel_ziv_classifier import complexities
from neuropil.spiking.meta_neuron import drawn


def meta():
    return MetaNeuron(), torch.randn(9, 3, 4) + 0.8


def meta_learned():
    return MetaNeuron(learn=True, features=4, detach_reset=False), torch.randn(9, 3, 4) + 0.8


def leaky():
    return ParametricLIF(tau=4.0, resistance=3.0, rest=-0.2, reset=-0.5), torch.randn(9, 3, 4)


def leaky_learned():
    return ParametricLIF(learn=True, features=4, resistance=4.0, detach_reset=False), torch.randn(9, 3, 4) + 1


def classifier():
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = np.where(y[:, None, None], rng.random((40, 60, 2)) < 0.5, np.arange(60)[:, None] % 2)
    return LempelZivClassifier(), {}, (X.astype(float), y)


PARTS = [
    ("module", meta),
    ("module", meta_learned),
    ("module", leaky),
    ("module", leaky_learned),
    ("estimator", classifier),
]


def gradients(run, tensors):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    outputs = run(*leaves)
    total = sum((out * torch.linspace(0.3, 1, out.numel()).view_as(out)).sum() for out in outputs)
    return [out.detach() for out in outputs], torch.autograd.grad(total, leaves, allow_unused=True)


@pytest.mark.parametrize("detach", [True, False])
def test_the_compiled_scan_is_the_equations_stepped_with_their_gradients(detach):
    torch.manual_seed(0)
    cell = MetaNeuron(learn=True, features=5, detach_reset=detach).double()
    x = (torch.randn(60, 3, 5) + 0.8).double()
    names, values = zip(*cell.named_parameters(), strict=True)

    def run(walk):
        def compute(x, *values):
            out, state = torch.func.functional_call(
                Walk(cell, walk), {f"cell.{n}": v for n, v in zip(names, values, strict=True)}, x
            )
            return out, state.membrane, state.recovery

        return gradients(compute, (x, *values))

    (fast, fast_gradients), (slow, slow_gradients) = run("scan"), run("steps")
    assert fast[0].sum() > 20
    assert torch.equal(fast[0], slow[0])
    for a, b in zip(fast[1:], slow[1:], strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


class Walk(nn.Module):
    """A cell by its own scan, or by the steps of its class."""

    def __init__(self, cell, how):
        super().__init__()
        self.cell, self.how = cell, how

    def forward(self, x):
        return self.cell(x) if self.how == "scan" else SpikingCell.forward(self.cell, x)


def test_it_is_izhikevichs_neuron_in_other_units():
    """V = 25 v - 75, w = 25 u - 75 b: the same spikes from the equivalent input."""
    pull, relax, reset, jump, threshold = 0.02, 0.08, 0.4, 0.2, 4.2
    b = pull / relax
    meta = MetaNeuron(pull, relax, reset, jump, threshold, dt=0.25).double()
    other = Izhikevich(relax, b, 25 * reset - 75, 25 * jump, threshold=25 * threshold - 75, dt=0.25).double()
    x = torch.rand(400, 2, 3).double()
    start = meta.initial_state(x)
    state = other.initial_state(x)._replace(
        membrane=25 * start.membrane - 75, recovery=25 * start.recovery - 75 * b
    )
    spikes, _ = meta(x)
    expected, _ = other(25 * x + 10 - 75 * b, state)
    assert spikes.sum() > 20
    assert torch.equal(spikes, expected)


def test_a_meta_neuron_rests_between_its_fixed_points():
    """Without recovery v' = v^2 - v: from below 1 it falls to 0, from above it fires."""
    cell = MetaNeuron(pull=0.0, jump=0.0, threshold=2.0, dt=0.1).double()
    x = torch.zeros(400, 1, 2).double()
    start = cell.initial_state(x)
    spikes, end = cell(x, start._replace(membrane=torch.tensor([[0.95, 1.05]]).double()))
    assert spikes.sum(0).tolist() == [[0.0, 1.0]]
    assert end.membrane[0, 0].abs() < 1e-6


def test_firing_is_drawn_with_the_logistic_probability_and_its_gradient():
    u = torch.linspace(-0.6, 0.6, 7, dtype=torch.double).requires_grad_()
    spikes = drawn(u.expand(40_000, 7), 0.2, torch.Generator().manual_seed(0))
    chance = torch.sigmoid(u.detach() / 0.2)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert (spikes.mean(0) - chance).abs().max() < 4 * math.sqrt(0.25 / 40_000)
    spikes.mean(0).sum().backward()
    torch.testing.assert_close(u.grad, chance * (1 - chance) / 0.2)


def test_a_cold_neuron_fires_at_its_threshold():
    x = torch.randn(50, 4, 3) + 0.8
    cold = MetaNeuron(temperature=1e-6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(cold(x)[0], MetaNeuron()(x)[0])


def test_probabilistic_firing_repeats_with_its_generator():
    x = torch.rand(30, 2, 4)
    first, again, other = (
        MetaNeuron(temperature=0.3, generator=torch.Generator().manual_seed(s))(x)[0] for s in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def literal_leaky(x, tau, resistance, threshold, reset, rest):
    v, spikes = np.full(x.shape[1:], rest), []
    for now in x:
        v = rest + resistance * now + (v - rest - resistance * now) * np.exp(-1 / tau)
        spikes.append((v >= threshold).astype(float))
        v = np.where(v >= threshold, reset, v)
    return np.stack(spikes), v


def test_a_leaky_neuron_is_the_exact_solution_between_spikes():
    rng = np.random.default_rng(1)
    x = rng.normal(0.4, 1.5, (80, 3, 4))
    numbers = {"tau": 6.0, "resistance": 2.5, "threshold": 0.875, "reset": -0.375, "rest": 0.125}
    spikes, state = ParametricLIF(**numbers).double()(torch.from_numpy(x))
    expected, v = literal_leaky(x, **numbers)
    assert expected.sum() > 30
    np.testing.assert_array_equal(spikes.numpy(), expected)
    np.testing.assert_allclose(state.membrane.numpy(), v, rtol=1e-10)


def test_the_firing_period_is_the_closed_form():
    """tau log((R x + rest - reset) / (R x + rest - threshold)), rounded up to whole steps."""
    cell = ParametricLIF(tau=20.0, resistance=2.0, threshold=1.0, reset=-0.5, rest=0.2).double()
    spikes, _ = cell(torch.full((400, 1, 1), 0.7).double())
    wanted = math.ceil(20 * math.log((1.6 + 0.5) / (1.6 - 1.0)))
    assert spikes.flatten().nonzero().flatten().diff().unique().tolist() == [wanted]


def test_all_constants_learn_and_keep_their_range():
    torch.manual_seed(0)
    cell = ParametricLIF(tau=20.0, resistance=20.0, learn=True, features=6)
    net = Sequential(nn.Linear(5, 6), cell, nn.Linear(6, 2), RateReadout())
    before = {name: value.clone() for name, value in cell.numbers().items()}
    x, y = (torch.rand(40, 32, 5) < 0.3).float(), torch.arange(32) % 2
    optimizer = torch.optim.Adam(net.parameters(), lr=0.5)  # far too large on purpose
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(10 * net(x), y).backward()
        optimizer.step()
    after = cell.numbers()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert bool((after["tau"] > 0).all()) and bool((after["resistance"] > 0).all())
    assert net(x).isfinite().all()


@pytest.mark.parametrize(
    ("kind", "settings", "match"),
    [
        (MetaNeuron, {"relax": 0.0}, "MetaNeuron.relax"),
        (MetaNeuron, {"reset": 1.0}, "MetaNeuron.reset"),
        (MetaNeuron, {"dt": 1.5}, "MetaNeuron.dt"),
        (MetaNeuron, {"temperature": -1.0}, "MetaNeuron.temperature"),
        (MetaNeuron, {"learn": ["pul"]}, "did you mean 'pull'"),
        (ParametricLIF, {"tau": 0.0}, "ParametricLIF.tau"),
        (ParametricLIF, {"reset": 2.0}, "ParametricLIF.reset"),
    ],
)
def test_settings_out_of_range_are_one_line(kind, settings, match):
    with pytest.raises(ConfigError, match=match) as caught:
        kind(**settings)
    assert "\n" not in str(caught.value)


class TestComplexity:
    def test_known_phrases(self):
        """0.001.10.100.1000.101, Lempel and Ziv's own example: 6 phrases of 16 symbols."""
        train = [int(c) for c in "0001101001000101"]
        assert complexities([train], "length").item() == pytest.approx(6 * 4 / 16)
        p = sum(train) / 16
        entropy = -p * math.log2(p) - (1 - p) * math.log2(1 - p)
        assert complexities([train]).item() == pytest.approx(6 * 4 / 16 / entropy)

    def test_order_counts_where_rate_does_not(self):
        rng = np.random.default_rng(0)
        regular = np.tile(np.arange(512) % 4 == 0, (40, 1))
        shuffled = rng.permuted(regular, axis=1)
        X, y = np.concatenate([regular, shuffled]), np.repeat(["regular", "shuffled"], 40)
        assert (X.mean(1) == 0.25).all()
        model = LempelZivClassifier().fit(X[::2], y[::2])
        assert model.score(X[1::2], y[1::2]) == 1

    def test_learning_in_pieces_is_learning_at_once(self):
        _, _, (X, y) = classifier()
        whole, pieces = LempelZivClassifier().fit(X, y), LempelZivClassifier()
        for rows in np.array_split(np.arange(len(y)), 5):
            pieces.partial_fit(X[rows], y[rows], classes=[0, 1])
        np.testing.assert_allclose(pieces.means_, whole.means_)
        np.testing.assert_allclose(pieces.scale_, whole.scale_)
        features = complexities(X)
        np.testing.assert_allclose(whole.means_[1], features[y == 1].mean(0))
        within = np.concatenate([features[y == k] - features[y == k].mean(0) for k in (0, 1)])
        np.testing.assert_allclose(
            whole.scale_, np.sqrt((within**2).mean(0)).clip(1e-6), rtol=1e-5, atol=1e-6
        )

    def test_refusals(self):
        _, _, (X, y) = classifier()
        with pytest.raises(DataError, match="whole, 0 to 255"):
            LempelZivClassifier().fit(X + 0.5, y)
        with pytest.raises(ShapeError, match="40 trains"):
            LempelZivClassifier().fit(X, y[:-1])
        with pytest.raises(ShapeError, match="expected 2 as in fit"):
            LempelZivClassifier().fit(X, y).predict(X[..., :1])
        with pytest.raises(ConfigError, match="did you mean 'entropy'"):
            LempelZivClassifier("entropie").fit(X, y)
        with pytest.raises(LabelError, match="label 7"):
            LempelZivClassifier().fit(X, y).partial_fit(X, y + 7)
