"""FEAST against its equations in numpy, its own bookkeeping and the balance that the rule must reach."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuropil.data import make_events, moving_images_to_events
from neuropil.errors import ConfigError, DataError, ShapeError
from neuropil.spiking import FEASTLayer, time_surfaces

SENSOR = (12, 10, 2)


def stream(count: int = 400, seed: int = 0, span: int = 50_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return make_events(
        rng.integers(0, span, count), rng.integers(0, 12, count), rng.integers(0, 10, count),
        rng.integers(0, 2, count),
    )  # fmt: skip


RECORDINGS = [stream(seed=seed) for seed in range(12)]


def layer(**changes):
    given = {"features": 5, "size": 5, "rise": 0.01, "fall": 0.02, "random_state": 0, **changes}
    return FEASTLayer(SENSOR, **given)


def feast():
    return layer(), {}, (RECORDINGS, np.arange(12) % 2)


def feast_of_all_channels():
    return layer(channels="all", inference="threshold", regions=(2, 3)), {}, (RECORDINGS, np.arange(12) % 2)


PARTS = [("estimator", feast), ("estimator", feast_of_all_channels)]


def surfaces_by_hand(events, size, tau, channels):
    """Every event looks back through all events before it."""
    radius, found = size // 2, []
    shown = {"own": 1, "all": 2, "merged": 1}[channels]
    for n, event in enumerate(events):
        square = np.zeros((shown, size, size))
        for old in events[: n + 1]:
            dx, dy = int(old["x"]) - int(event["x"]) + radius, int(old["y"]) - int(event["y"]) + radius
            if not (0 <= dx < size and 0 <= dy < size) or (channels == "own" and old["p"] != event["p"]):
                continue
            square[old["p"] if channels == "all" else 0, dy, dx] = np.exp(-(event["t"] - old["t"]) / tau)
        found.append(square / np.linalg.norm(square))
    return np.stack(found)


@pytest.mark.parametrize("channels", ["own", "all", "merged"])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_surfaces_are_how_recent_the_neighbours_are(channels, size):
    events = stream(150)
    found = time_surfaces(events, SENSOR, size=size, time_constant=8.0, channels=channels)
    np.testing.assert_allclose(found.surfaces, surfaces_by_hand(events, size, 8000.0, channels), atol=1e-12)


def by_hand(recordings, weights, thresholds, rate, rise, fall, tau=20_000.0):
    """The rule as it reads."""
    weights, thresholds, winners = weights.copy(), thresholds.copy(), []
    for events in recordings:
        for surface in surfaces_by_hand(events, 5, tau, "own").reshape(len(events), -1):
            similar = weights @ surface
            if not (similar > thresholds).any():
                thresholds -= fall
                winners.append(-1)
                continue
            best = int(np.where(similar > thresholds, similar, -np.inf).argmax())
            weights[best] = (1 - rate) * weights[best] + rate * surface
            weights[best] /= np.linalg.norm(weights[best])
            thresholds[best] += rise
            winners.append(best)
    return weights, thresholds, winners


@pytest.mark.parametrize("compiled", [True, False])
def test_learning_follows_the_equations(compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr("neuropil.kernels.surfaces.HAS_NUMBA", False)
    model = layer(learning_rate=0.05).partial_fit(RECORDINGS[:1])
    weights, thresholds, winners = by_hand(
        RECORDINGS[1:3], model.weights_, model.thresholds_, 0.05, 0.01, 0.02
    )
    found = np.concatenate([model.learn(events).winners for events in RECORDINGS[1:3]])
    assert found.tolist() == winners and len(set(winners)) == 6  # misses and every feature
    np.testing.assert_allclose(model.weights_, weights, rtol=1e-10)
    np.testing.assert_allclose(model.thresholds_, thresholds, rtol=1e-10)


def test_the_winner_is_sought_among_the_eligible_only():
    """The most similar feature refuses; the second takes the event, and nothing falls."""
    model = FEASTLayer((1, 1, 1), features=2, size=3, channels="merged", rise=0.25, fall=0.5).partial_fit(
        [make_events([], [])]
    )
    model.weights_ = np.eye(9)[[4, 4]]
    model.weights_[1, 0], model.weights_[1, 4] = 0.8, 0.6
    model.thresholds_ = np.array([1.5, 0.5])
    assert model.learn(make_events([0], [0])).winners.tolist() == [1]
    assert model.thresholds_.tolist() == [1.5, 0.75]
    assert model.learn(make_events([0], [0])).winners.tolist() == [-1]  # 0.6 is less than 0.75
    assert model.thresholds_.tolist() == [1.0, 0.25]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.001, 0.05), st.floats(0.001, 0.05))
def test_thresholds_keep_the_books(seed, rise, fall):
    """Every threshold is its first value, plus a rise for each win, minus a fall for each miss of anyone."""
    model = layer(rise=rise, fall=fall, random_state=seed).partial_fit([make_events([], [])])
    first = model.thresholds_.copy()
    model.partial_fit(RECORDINGS[:2])
    misses = 800 - model.wins_.sum()
    np.testing.assert_allclose(model.thresholds_, first + rise * model.wins_ - fall * misses, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(model.weights_, axis=1), 1, rtol=1e-9)
    assert (model.weights_ >= 0).all()


@pytest.mark.parametrize("first", [None, 1.0, -3.0])
@pytest.mark.parametrize("fall", [0.005, 0.02])
def test_wins_and_misses_come_into_balance_from_any_start(first, fall):
    recordings = [stream(2000, seed) for seed in range(20)]
    model = layer(rise=0.005, fall=fall, initial_threshold=first).fit(recordings)
    settled = layer(rise=0.005, fall=fall)
    assert settled.expected_miss_rate == pytest.approx(0.005 / (0.005 + 5 * fall))
    model.wins_ = model.wins_ * 0
    missed = np.mean([(model.learn(events).winners < 0).mean() for events in recordings])
    assert missed == pytest.approx(model.expected_miss_rate, rel=0.05)
    assert model.wins_.std() / model.wins_.mean() < 0.05


def test_without_thresholds_nothing_is_missed_and_somebody_wins_more():
    plain = layer(rise=0.0, fall=0.0, initial_threshold=-np.inf).fit(RECORDINGS)
    assert plain.miss_rates_.max() == 0 and plain.expected_miss_rate == 0
    adaptive = layer().fit(RECORDINGS)
    assert plain.wins_.std() > 3 * adaptive.wins_.std()


def test_a_recording_in_stretches_is_the_recording():
    model, events = layer().fit(RECORDINGS), RECORDINGS[3]
    whole = model.process(events)
    last, found = None, []
    for part in np.array_split(events, 7):
        step = model.process(part, last)
        found.append(step.events)
        last = step.last
    assert np.array_equal(np.concatenate(found), whole.events) and np.array_equal(last, whole.last)
    first = time_surfaces(events[:100], SENSOR)
    rest = time_surfaces(events[100:], SENSOR, last=first.last)
    assert np.array_equal(rest.surfaces, time_surfaces(events, SENSOR).surfaces[100:])


def test_layers_stand_on_layers():
    """A layer's events are the next layer's input, their polarity the feature that won."""
    first = layer().fit(RECORDINGS)
    between = [first.process(events).events for events in RECORDINGS]
    assert {int(p) for events in between for p in events["p"]} == set(range(5))
    second = FEASTLayer((12, 10, 5), features=3, size=7, channels="all", random_state=0).fit(between)
    assert second.weights_.shape == (3, 5 * 49) and second.transform(between).sum() == sum(map(len, between))


def test_counts_are_by_region_and_feature():
    model = layer(regions=(2, 3)).fit(RECORDINGS)
    counts = model.transform(RECORDINGS[:1]).reshape(2, 3, 5)
    events = model.process(RECORDINGS[0]).events
    here = (events["y"] >= 5) & (events["x"] >= 4) & (events["x"] < 8)
    assert counts[1, 1].tolist() == np.bincount(events["p"][here], minlength=5).tolist()
    assert counts.sum() == len(RECORDINGS[0])
    picky = layer(regions=(2, 3), inference="threshold").fit(RECORDINGS)
    assert picky.transform(RECORDINGS[:1]).sum() < counts.sum()


def test_events_in_any_order_and_signs_of_polarity_are_the_same():
    events = RECORDINGS[0][np.sort(np.unique(RECORDINGS[0]["t"], return_index=True)[1])]
    other = events[np.random.default_rng(0).permutation(len(events))]
    other["p"] = np.where(other["p"] == 0, -1, 1)
    model = layer().fit(RECORDINGS)
    assert np.array_equal(model.process(other).events, model.process(events).events)
    merged = FEASTLayer((12, 10, 1), features=3, size=3).fit(RECORDINGS)  # one polarity: both are the same
    assert merged.transform([other]).sum() == len(events)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": 0}, "features"),
        ({"size": 4}, "odd"),
        ({"time_constant": 0.0}, "time_constant"),
        ({"learning_rate": 1.5}, "learning_rate"),
        ({"rise": -1.0}, "rise"),
        ({"fall": np.nan}, "fall"),
        ({"initial_threshold": np.inf}, "initial_threshold"),
        ({"channels": "ownn"}, "did you mean 'own'"),
    ],
)
def test_a_setting_out_of_range_is_one_line(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        layer(**changes).fit(RECORDINGS)
    assert "\n" not in str(caught.value)


def test_what_are_no_events_is_refused():
    with pytest.raises(DataError, match="fields none"):
        layer().fit([np.zeros((3, 4))])
    with pytest.raises(DataError, match="x lies in"):
        FEASTLayer((4, 10, 2)).fit(RECORDINGS)
    with pytest.raises(DataError, match="no recording"):
        layer().fit([])
    with pytest.raises(ShapeError, match="last is"):
        layer().fit(RECORDINGS).process(RECORDINGS[0], np.zeros((2, 3, 3), np.int64))
    with pytest.raises(ConfigError, match="did you mean 'nearest'"):
        layer(inference="nearst").fit(RECORDINGS).transform(RECORDINGS)


def test_a_moving_edge_makes_events_where_it_passes():
    """A bright square of light 1 on dark moves right by a pixel: its right edge brightens, its left edge darkens."""
    square = np.zeros((1, 8, 8))
    square[:, 2:6, 2:6] = 1.0
    settings = {"path": ((0, 0), (1, 0)), "margin": 2, "threshold": np.log(2.0) * 0.999}
    (events,) = moving_images_to_events(square, **settings)
    brighter, darker = events[events["p"] == 1], events[events["p"] == 0]
    assert sorted(brighter["y"]) == [4, 5, 6, 7] and set(brighter["x"]) == {8}
    assert sorted(darker["y"]) == [4, 5, 6, 7] and set(darker["x"]) == {4}
    many = moving_images_to_events(np.concatenate([square] * 130 + [0 * square]), **settings)
    assert all(np.array_equal(events, each) for each in many[:130]) and len(many) == 131 and not len(many[-1])
    with pytest.raises(ShapeError, match="images, height, width"):
        moving_images_to_events(square[0])
    with pytest.raises(ConfigError, match="path"):
        moving_images_to_events(square, path=((0, 0),))
