"""The compiled presentation against numpy, single neurons against closed forms, and who speaks for a place."""

from __future__ import annotations

import math

import numpy as np
import pytest

from neuropil.errors import ConfigError, DataError, LabelError, ShapeError
from neuropil.kernels import diehl_cook
from neuropil.kernels.diehl_cook import OFFSET, Plasticity, present, present_reference
from neuropil.spiking import DiehlCookModule, ModularEnsemble, remove_hyperactive
from neuropil.spiking.place_ensembles import poisson_events

PICTURES = np.kron(np.eye(6), np.full((1, 20), 255.0)) + 5.0 * np.arange(6)[:, None]


def module():
    return (
        DiehlCookModule(9, epochs=3, intensity=0.5, duration=100.0, random_state=0),
        {},
        (
            np.repeat(PICTURES, 2, 0) + np.arange(12)[:, None],
            np.repeat(np.arange(6), 2),
        ),
    )


def ensemble():
    return (
        ModularEnsemble(2, 9, epochs=3, intensity=0.5, duration=100.0, random_state=0),
        {},
        (
            np.repeat(PICTURES, 2, 0) + np.arange(12)[:, None],
            np.repeat(np.arange(6), 2),
        ),
    )


PARTS = [("estimator", module), ("estimator", ensemble)]


@pytest.mark.parametrize(
    "plasticity", [Plasticity(), Plasticity(1e-3, 0.05, 0.1), Plasticity(-1e-3, 0.05, 0.1)]
)
def test_the_compiled_presentation_is_the_definition(plasticity):
    rng = np.random.default_rng(0)
    weight = 0.6 * rng.random((40, 7))
    theta = OFFSET + rng.random(7)
    offsets, inputs = poisson_events(rng.uniform(20, 120, 40), 300.0, rng)
    found, wanted = (weight.copy(), theta.copy()), (weight.copy(), theta.copy())
    counts = present(offsets, inputs, *found, plasticity)
    expected = np.zeros(7, np.int64)
    present_reference(offsets, inputs, *wanted, *plasticity, expected)
    assert counts.tolist() == expected.tolist() and counts.sum() > 20
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-9)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-12)
    assert (not np.array_equal(found[0], weight)) == bool(plasticity.post)


def test_without_numba_it_is_the_same(monkeypatch):
    rng = np.random.default_rng(1)
    weight, theta = rng.random((30, 4)), np.full(4, OFFSET)
    offsets, inputs = poisson_events(np.full(30, 80.0), 100.0, rng)
    compiled = present(offsets, inputs, weight.copy(), theta.copy(), Plasticity())
    monkeypatch.setattr(diehl_cook, "HAS_NUMBA", False)
    assert present(offsets, inputs, weight, theta, Plasticity()).tolist() == compiled.tolist()


def test_whoever_fires_first_silences_the_others():
    """A spike takes (v + 100 mV) of the others down by 13 %; those that are driven less never get back in time."""
    weight = np.array([[0.049, 0.0295, 0.0275]] * 4)
    offsets, inputs = np.arange(0, 4 * 4000 + 1, 4), np.tile(np.arange(4), 4000)
    counts = present(offsets, inputs, weight, np.full(3, OFFSET), Plasticity())
    alone = [
        int(present(offsets, inputs, weight[:, [j]].copy(), np.full(1, OFFSET), Plasticity())[0])
        for j in range(3)
    ]
    assert min(alone) >= 5 and counts[0] == alone[0] and counts[1:].max() <= 1


def test_a_huge_crowd_of_winners_stays_finite():
    """Hundreds of inhibitory spikes in one step: the exact step settles between the reversals."""
    weight = np.full((50, 400), 1.0)
    theta = np.full(400, OFFSET)
    counts = present(
        np.arange(0, 50 * 200 + 1, 50), np.tile(np.arange(50), 200), weight, theta, Plasticity(0, 0, 0.05)
    )
    assert counts.max() < 30 and np.isfinite(theta).all()


def test_a_pair_of_spikes_changes_the_weight_by_the_triplet_rule():
    """No change at a first postsynaptic spike; then rate * pre * post_2, each trace as its exponential has it."""
    steps = 400
    weight, theta = (
        np.full((1, 1), 1.0),
        np.full(1, 0.0),
    )  # so low a threshold that rest exceeds it: fires at once
    weight[:] = 0.5
    offsets = np.searchsorted([0], np.arange(steps + 1))
    present(offsets, np.array([0]), weight, theta, Plasticity(0.0, 0.01, 0.0))
    # fires at step 0, then every 11 steps: the input's trace and the neuron's own slow one both fade between
    fired = np.arange(11, steps, 11)
    wanted = 0.5 + 0.01 * sum(math.exp(-0.5 * t / 20) * math.exp(-0.5 * 11 / 40) for t in fired)
    assert weight[0, 0] == pytest.approx(wanted, rel=1e-9)


def test_events_have_the_rates_asked_for():
    rates = np.array([0.0, 10.0, 60.0])
    offsets, inputs = poisson_events(rates, 100_000.0, np.random.default_rng(0))
    assert np.bincount(inputs, minlength=3) / 100 == pytest.approx(rates, rel=0.05)
    assert offsets[0] == 0 and offsets[-1] == len(inputs) and (np.diff(offsets) >= 0).all()


def test_weights_stay_in_their_range_and_thresholds_only_grow():
    fitted, _, (pictures, _) = module()
    fitted.fit(pictures)
    assert fitted.weights_.min() >= 0 and fitted.weights_.max() <= 1
    assert (fitted.theta_ > OFFSET - 0.01).all() and fitted.theta_.max() > OFFSET + 0.05
    before = fitted.weights_.copy(), fitted.theta_.copy()
    fitted.transform(pictures)
    assert np.array_equal(before[0], fitted.weights_) and np.array_equal(before[1], fitted.theta_)


def test_neurons_that_respond_everywhere_are_left_out():
    reference = np.zeros((10, 4))
    reference[:, 0], reference[:3, 1], reference[:5, 2] = 9, 1, 1
    assert remove_hyperactive(reference, 5).tolist() == [False, True, False, True]
    assert remove_hyperactive(reference, 4).tolist() == [False, True, False, True]
    assert remove_hyperactive(reference, 0).all()


def by_hand() -> ModularEnsemble:
    """Two modules of two neurons and two places each, with responses written by hand."""
    made = ModularEnsemble(2, 2)
    made.classes_, made.modules_ = np.arange(4), []
    made.reference_ = np.array([[9, 0, 0, 2], [0, 3, 0, 2], [1, 0, 4, 2], [1, 0, 0, 3]])
    made.owner_ = made._owners(made.reference_, np.arange(4))
    return made


def test_a_neuron_stands_for_the_place_of_its_own_module_that_it_answers_to_most():
    assert by_hand().owner_.tolist() == [0, 1, 2, 3]
    silent = by_hand()
    assert silent._owners(silent.reference_ * [1, 0, 1, 1], np.arange(4)).tolist() == [0, -1, 2, 3]


def test_a_loud_neuron_of_another_region_no_longer_wins():
    made, query = by_hand(), np.array([[0, 2, 0, 5]])
    assert made.scores(query).tolist() == [[0, 2, 0, 5]]
    assert made.choose(query, [1], (0, 4)) == 4  # neuron 3 responds to all four pictures
    assert made.scores(query).tolist() == [[0, 2, 0, 0]]


def test_places_are_recognised_where_they_are_easy():
    places = np.kron(np.eye(8), np.full((1, 25), 255.0))
    made = ModularEnsemble(2, 16, epochs=6, intensity=0.5, random_state=0).fit(places, np.arange(8))
    assert (made.predict(places) == np.arange(8)).mean() > 0.7


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"units": 1}, "units"), ({"epochs": 0}, "epochs"), ({"intensity": 0.0}, "intensity"),
     ({"duration": -1.0}, "duration"), ({"rate_post": -1.0}, "rate_post"), ({"rate_pre": math.nan}, "rate_pre")],
)  # fmt: skip
def test_a_setting_out_of_range_is_one_line(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        DiehlCookModule(**changes).fit(PICTURES)
    assert "\n" not in str(caught.value)


def test_pictures_that_do_not_fit_are_refused():
    fitted = module()[0].fit(PICTURES)
    with pytest.raises(ShapeError, match="120"):
        fitted.transform(PICTURES[:, :50])
    with pytest.raises(DataError, match="counts >= 0"):
        module()[0].fit(-PICTURES)
    with pytest.raises(LabelError):
        ensemble()[0].fit(PICTURES, np.arange(3))
    with pytest.raises(ConfigError, match="modules"):
        ModularEnsemble(9).fit(PICTURES, np.arange(6))
    with pytest.raises(DataError, match="no thresholds"):
        by_hand().choose(np.zeros((1, 4)), [0], ())
