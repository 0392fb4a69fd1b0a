"""A liquid under an astrocyte: what branching is by hand, and what plasticity leaves of weights."""

from __future__ import annotations

import numpy as np
import pytest

from neuropil.errors import ConfigError, DataError, ShapeError
from neuropil.spiking import AstrocyteLiquid, branching_factor


def images(seed: int = 0, count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Two kinds of images of 36 pixels: the left half bright, or the right."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 2
    left = (np.arange(36) < 18) == y[:, None]
    return np.clip(np.where(left, 0.6, 0.05) + 0.1 * rng.random((count, 36)), 0, 1), y


def liquid(**settings: object) -> AstrocyteLiquid:
    return AstrocyteLiquid((4, 4, 4), **({"steps": 40, "input_density": 0.5, "random_state": 0} | settings))


def made() -> tuple[AstrocyteLiquid, dict[str, str], tuple[np.ndarray, np.ndarray]]:
    return liquid(steps=10), {}, images(count=12)


PARTS = [("estimator", made)]


def test_branching_by_hand() -> None:
    fan = np.zeros((4, 4))
    fan[1:3, 0], fan[3, 1:3] = 1.0, 1.0  # 0 excites 1 and 2, which excite 3
    spikes = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    # in the middle steps 1 and 2 fire behind one spike and before one; 3 fires behind two and before none
    assert branching_factor(spikes, fan) == pytest.approx((1 + 1 + 0) / 3)
    with pytest.raises(DataError, match="no spike between"):
        branching_factor(np.zeros((4, 4)), fan)
    with pytest.raises(ShapeError, match="a row and column each"):
        branching_factor(spikes, fan[:3, :3])
    with pytest.raises(DataError, match="expected 0 or 1"):
        branching_factor(2 * spikes, fan)


@pytest.mark.parametrize("ratio", [0.6, 1.0, 1.4])
@pytest.mark.parametrize("window", [1, 3])
def test_branching_of_a_process_of_known_ratio(ratio: float, window: int) -> None:
    rng = np.random.default_rng(3)
    units, degree = 1000, 10
    targets = np.stack([rng.choice(units, degree, replace=False) for _ in range(units)])
    connections = np.zeros((units, units), bool)
    connections[targets, np.arange(units)[:, None]] = True
    runs = np.zeros((300, 5 + window, units), np.uint8)
    for run in runs:
        run[3, rng.integers(units)] = 1  # one ancestor; it and its children have whole windows
        for t in range(3, run.shape[0] - 1):
            reached = targets[run[t] > 0]
            run[t + 1, reached[rng.random(reached.shape) < ratio / degree]] = 1
    assert branching_factor(runs, connections, window=window) == pytest.approx(ratio, rel=0.15)


def test_windows_count_whole_steps() -> None:
    pair = np.array([[0, 1], [1, 0]])
    spikes = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 0], [0, 1], [1, 0]])
    assert branching_factor(spikes, pair) == 1
    # a window of two holds the partner once on either side; three steps in the middle have whole windows
    assert branching_factor(spikes, pair, window=2) == 1
    late = np.array([[0, 0], [0, 0], [1, 0], [0, 0], [0, 1]])
    assert branching_factor(late, pair, window=2) == 1  # its target fires two steps on, nothing before
    assert branching_factor(late, pair) == 0
    with pytest.raises(ConfigError, match="window=0"):
        branching_factor(late, pair, window=0)


def test_without_plasticity_weights_stay_at_one() -> None:
    X, _ = images()
    drawn = liquid(plasticity=None).fit(X)
    assert set(np.unique(drawn.connections_)) == {-1.0, 0.0, 1.0}
    inhibits = (drawn.connections_ < 0).any(0)
    assert (
        0 < inhibits.sum() <= 13 and not (drawn.connections_[:, inhibits] > 0).any()
    )  # of 64, by column: Dale


@pytest.mark.parametrize("plasticity", ["astrocyte", "stdp"])
def test_plasticity_keeps_signs_and_bounds_and_moves_weights(plasticity: str) -> None:
    X, _ = images()
    drawn, learned = liquid(plasticity=None).fit(X), liquid(plasticity=plasticity).fit(X)
    before, after = drawn.connections_, learned.connections_
    assert np.abs(after).max() <= 3 and (before * after >= 0).all() and (after[before == 0] == 0).all()
    assert np.abs(after - before).max() > 0.05
    assert np.abs(learned.input_weight_).max() <= 3


def test_learning_in_parts_goes_on_where_it_ended() -> None:
    X, _ = images(count=250)
    whole, parts = liquid().fit(X), liquid().partial_fit(X[:100]).partial_fit(X[100:])  # drawn 100 at a time
    np.testing.assert_array_equal(whole.weight_, parts.weight_)
    np.testing.assert_array_equal(whole.transform(X[:3]), parts.transform(X[:3]))
    assert whole.depression_.shape == (250, 20) and parts.depression_.shape == (150, 20)
    np.testing.assert_array_equal(whole.depression_[100:], parts.depression_)


def test_the_astrocyte_holds_a_liquid_that_rests_off_its_balance() -> None:
    rng = np.random.default_rng(1)
    X = np.clip(rng.random((400, 100)) * rng.integers(0, 2, (400, 100)), 0, 1)
    rate = {}
    for plasticity in ("astrocyte", "stdp"):
        for depression in (0.09, 0.25):
            each = AstrocyteLiquid(
                (6, 6, 6), plasticity=plasticity, depression=depression, astrocyte_weight=0.06, steps=60,
                input_density=0.5, random_state=0,
            ).fit(X)  # fmt: skip
            rate[plasticity, depression] = each.spikes(X[:10]).mean()
    constant = rate["stdp", 0.09] - rate["stdp", 0.25]
    assert constant > 0.2  # from a fit to silence: at most one spike in three steps is possible
    assert rate["astrocyte", 0.09] - rate["astrocyte", 0.25] < constant / 2


def test_shares_add_up_to_one_and_tell_the_two_kinds_apart() -> None:
    X, y = images(count=40)
    reader = liquid().fit(X)
    shares = reader.transform(X)
    np.testing.assert_allclose(shares.sum(1), 1)
    centre = [shares[y == kind].mean(0) for kind in (0, 1)]
    nearest = np.stack([((shares - each) ** 2).sum(1) for each in centre]).argmin(0)
    assert (nearest == y).mean() > 0.9
    np.testing.assert_array_equal(shares, reader.transform(X))
    assert reader.spikes(X[:2]).shape == (2, 40, 64)


def test_what_is_out_of_range_is_told() -> None:
    X, _ = images()
    with pytest.raises(ConfigError, match="plasticity: got 'hebb'"):
        liquid(plasticity="hebb").fit(X)
    with pytest.raises(ConfigError, match="reach"):
        liquid(reach=0).fit(X)
    with pytest.raises(DataError, match="chances of a hit"):
        liquid().fit(X + 1)
    with pytest.raises(ShapeError, match="expected 36 as in fit"):
        liquid().fit(X).transform(X[:, :5])
