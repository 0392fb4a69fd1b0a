"""Liquids under an astrocyte: the compiled run against the equations, and what plasticity may never do."""

from __future__ import annotations

import numpy as np
import pytest

from neuropil.errors import ShapeError
from neuropil.kernels.astrocyte_liquid import (
    AstrocyteNumbers,
    LiquidWiring,
    astrocyte_liquid_reference,
    astrocyte_liquid_scan,
)

INPUTS, UNITS = 12, 20


def drawn(seed=0):
    """Spikes, wiring and weights of a lively little liquid."""
    rng = np.random.default_rng(seed)
    there = rng.random((INPUTS + UNITS, UNITS)) < 0.3
    there[INPUTS + np.arange(UNITS), np.arange(UNITS)] = False
    inhibits = np.arange(INPUTS + UNITS) >= INPUTS + 15
    low = np.where(np.arange(INPUTS + UNITS) < INPUTS, -3.0, np.where(inhibits, -3.0, 0.0))
    high = np.where(inhibits, 0.0, 3.0)
    offsets = np.concatenate([[0], np.cumsum(there.sum(1))])
    wiring = LiquidWiring(offsets, np.nonzero(there)[1], inhibits, low, high)
    sources = np.repeat(np.arange(INPUTS + UNITS), np.diff(offsets))
    weight = np.where(inhibits[sources], -1.0, rng.uniform(1.0, 3.0, len(sources)))
    return (rng.random((3, 60, INPUTS)) < 0.5).astype(np.uint8), wiring, weight


def fires(hits, refractory=2):
    """When inputs fire that are hit: an independent loop over each of them."""
    spikes = np.zeros_like(hits)
    for image, _, j in np.ndindex(hits.shape[0], 1, hits.shape[2]):
        free, waits = 0, False
        for t in range(hits.shape[1]):
            waits = waits or hits[image, t, j] == 1
            if waits and t >= free:
                spikes[image, t, j], free, waits = 1, t + refractory + 1, False
    return spikes


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("w_a", [0.0, 0.03])
def test_compiled_run_follows_the_equations(learns, w_a):
    x, wiring, weight = drawn()
    numbers, trace = AstrocyteNumbers(astrocyte_weight=w_a, current_time=1.5), np.full(INPUTS + UNITS, 0.1)
    found = astrocyte_liquid_scan(x, wiring, weight, trace, UNITS, numbers, learns=learns)
    wanted = astrocyte_liquid_reference(x, wiring, weight, trace, UNITS, numbers, learns=learns)
    assert found.spikes.sum() > 100 and np.array_equal(found.spikes, wanted.spikes)
    for name in ("weight", "trace", "astrocyte"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-9, atol=1e-12)
    assert np.array_equal(found.weight, weight) is not learns


def test_an_input_that_is_always_hit_fires_every_third_millisecond_and_refractory_units_add_up():
    none = np.zeros(2)
    wiring = LiquidWiring(np.array([0, 1, 1]), np.array([0]), none.astype(bool), none, none + 50)
    hits = np.zeros((1, 12, 1), np.uint8)
    hits[0, [0, 1, 6]] = 1  # the second hit waits for two milliseconds
    run = astrocyte_liquid_scan(
        hits, wiring, np.array([20.0]), none, 1, AstrocyteNumbers(current_time=1e-3, refractory=4)
    )
    # currents of 20000 arrive one step after input spikes 0, 5 (late) and 10 (later still): 1, then 6, 11
    assert np.flatnonzero(run.spikes[0, :, 0]).tolist() == [1, 6, 11]
    assert np.flatnonzero(fires(np.ones((1, 12, 1)))[0, :, 0]).tolist() == [0, 3, 6, 9]
    pair = LiquidWiring(
        np.array([0, 1, 2, 2]), np.array([0, 0]), np.zeros(3, bool), np.zeros(3), np.full(3, 50.0)
    )
    hits = np.zeros((1, 8, 2), np.uint8)
    hits[0, 0, 0], hits[0, 1, 1] = 1, 1  # the second arrives while the unit is refractory
    run = astrocyte_liquid_scan(hits, pair, np.array([20.0, 40.0]), np.zeros(3), 1, learns=False)
    assert np.flatnonzero(run.spikes[0, :, 0]).tolist() == [1, 4]


def test_weights_keep_their_sign_and_bounds():
    x, wiring, weight = drawn(1)
    found = astrocyte_liquid_scan(x, wiring, weight, np.zeros(INPUTS + UNITS), UNITS).weight
    sources = np.repeat(np.arange(INPUTS + UNITS), np.diff(wiring.offsets))
    assert ((found >= wiring.low[sources]) & (found <= wiring.high[sources])).all()


def test_astrocyte_without_weight_rests_and_follows_the_surplus_with_one():
    x, wiring, weight = drawn(2)
    still = astrocyte_liquid_scan(x, wiring, weight, np.zeros(INPUTS + UNITS), UNITS)
    assert np.ptp(still.astrocyte) == 0 and still.astrocyte[0, 0] == 0.15
    moved = astrocyte_liquid_scan(
        x, wiring, weight, np.zeros(INPUTS + UNITS), UNITS, AstrocyteNumbers(astrocyte_weight=0.5)
    )
    surplus = moved.spikes.sum(2).astype(float) - fires(x[:1]).sum(2)
    level = 0.15
    assert surplus.min() < 0 < surplus.max()
    for t in range(x.shape[1]):
        level += (0.5 * surplus[0, t] + 0.15 - level) / 100
        assert moved.astrocyte[0, t] == pytest.approx(level)


def test_images_pass_on_weights_and_traces_alone():
    x, wiring, weight = drawn(3)
    numbers = AstrocyteNumbers(astrocyte_weight=0.03)
    whole = astrocyte_liquid_scan(x, wiring, weight, np.zeros(INPUTS + UNITS), UNITS, numbers)
    trace = np.zeros(INPUTS + UNITS)
    for image in range(3):
        run = astrocyte_liquid_scan(x[image : image + 1], wiring, weight, trace, UNITS, numbers)
        weight, trace = run.weight, run.trace
        assert np.array_equal(run.spikes[0], whole.spikes[image])
    assert np.array_equal(weight, whole.weight)


def test_what_does_not_fit_is_refused():
    x, wiring, weight = drawn()
    with pytest.raises(ShapeError, match="trace is for 3 sources"):
        astrocyte_liquid_scan(x, wiring, weight, np.zeros(3), UNITS)
    with pytest.raises(ShapeError, match="expected one for each"):
        astrocyte_liquid_scan(x, wiring, weight[1:], np.zeros(INPUTS + UNITS), UNITS)
    with pytest.raises(ShapeError, match="images, time, inputs"):
        astrocyte_liquid_scan(x[0], wiring, weight, np.zeros(INPUTS + UNITS), UNITS)
