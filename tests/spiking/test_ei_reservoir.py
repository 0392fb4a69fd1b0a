"""E/I reservoirs: the written equations in numpy, rates that reach their targets, Dale's law, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuropil.errors import ConfigError, DataError, ShapeError
from neuropil.spiking import (
    EIReservoir,
    EIReservoirClassifier,
    InhibitoryDesign,
    InhibitoryHomeostasis,
    adapt_inhibition,
    design_inhibition,
    memory_capacity,
)

rng = np.random.default_rng(0)
SERIES = rng.uniform(-1, 1, (12, 40, 2))
WHITE = rng.uniform(-1, 1, (1500, 1))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def adapted():
    rule = InhibitoryHomeostasis((2.0, 2.0), steps=100)
    return (
        EIReservoir(40, in_degree=15, adaptation=rule, washout=3, random_state=0),
        {},
        (SERIES, SERIES[..., 0]),
    )


def designed():
    model = EIReservoir(40, in_degree=15, adaptation=InhibitoryDesign(), reading="mean", random_state=0)
    return model, {}, (SERIES, SERIES.mean((1, 2)))


def classes():
    model = EIReservoirClassifier(40, in_degree=15, balance=1.2, reading="last", random_state=0)
    return model, {}, (SERIES, np.arange(12) % 2)


PARTS = [("estimator", make) for make in (adapted, designed, classes)]


def drawn(units=30, seed=0):
    """Excitation, inhibition and drive of a small network, some connections missing."""
    draw = np.random.default_rng(seed)
    there = draw.random((2, units, units)) < 0.4
    weights = there * draw.uniform(0.05, 0.2, (2, units, units))
    return weights[0], 2 * weights[1], 0.2 * draw.normal(size=(400, units))


def test_states_follow_the_equation():
    model = EIReservoir(50, in_degree=20, balance=0.8, gain=6.0, threshold=0.1, random_state=3)
    model.fit(SERIES, SERIES[..., 0])
    r, wanted = np.full((12, 50), 0.5), np.zeros((12, 40, 50))
    for t in range(40):
        drive = r @ (model.excitation_ - model.inhibition_).T + SERIES[:, t] @ model.input_weight_.T
        r = sigmoid(6.0 * (drive - 0.1))
        wanted[:, t] = r
    np.testing.assert_allclose(model.states(SERIES), wanted, rtol=1e-9)


def test_adaptation_follows_its_rule_in_numpy():
    E, inhibition, drive = drawn()
    target, lr = np.linspace(0.2, 0.8, 30), np.geomspace(0.02, 0.005, len(drive))
    found, rates = adapt_inhibition(E, inhibition, drive, target, gain=5.0, threshold=0.05, lr=lr)
    A, r, exists = inhibition.copy(), np.full(30, 0.5), inhibition > 0
    for t in range(len(drive)):
        r = sigmoid(5.0 * (E @ r - A @ r + drive[t] - 0.05))
        A = np.where(exists, np.maximum(A + (lr[t] * (r - target))[:, None], 0), 0)
    np.testing.assert_allclose(found, A, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(rates, r, rtol=1e-9)


def test_a_run_in_pieces_is_the_whole_run():
    E, inhibition, drive = drawn()
    inhibition /= 100  # much of it shrinks to nothing on the way, and is still a connection
    target = np.full(30, 0.6)
    whole = adapt_inhibition(E, inhibition, drive, target)
    first, rates = adapt_inhibition(E, inhibition, drive[:150], target)
    second = adapt_inhibition(E, first, drive[150:], target, rates=rates)
    np.testing.assert_allclose(second[0], whole[0], atol=1e-15)
    np.testing.assert_allclose(second[1], whole[1], atol=1e-15)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), target=st.floats(0.1, 0.9), lr=st.floats(1e-4, 0.5))
def test_dales_law_and_wiring_survive_any_adaptation(seed, target, lr):
    E, inhibition, drive = drawn(12, seed)
    found, rates = adapt_inhibition(E, inhibition, drive[:60], target, lr=lr)
    assert (found >= 0).all() and np.array_equal(found > 0, inhibition > 0)
    assert ((rates >= 0) & (rates <= 1)).all()


@pytest.mark.parametrize("target", [0.3, np.linspace(0.25, 0.7, 30)])
def test_what_is_designed_rests_at_its_targets(target):
    E, inhibition, _ = drawn()
    found = design_inhibition(E, inhibition, target, mean_drive=0.4, gain=8.0, threshold=0.02)
    rates = np.broadcast_to(target, 30)
    np.testing.assert_allclose(sigmoid(8.0 * (E @ rates - found @ rates + 0.4 - 0.02)), rates, rtol=1e-9)


def test_what_only_excitation_could_reach_loses_its_inhibition():
    E, inhibition, _ = drawn()
    assert not design_inhibition(E, inhibition, 0.9, mean_drive=-9.0).any()
    E[0], inhibition[0] = 0, 0
    assert not design_inhibition(E, inhibition, 0.5)[0].any()  # no inhibition to scale: no division by zero


@pytest.mark.parametrize("balance", [0.5, 2.0])
def test_mean_rates_reach_their_targets_from_any_balance(balance):
    rule = InhibitoryHomeostasis((4.0, 4.0), steps=3000)
    settings = {"in_degree": 30, "balance": balance, "random_state": 1}
    model = EIReservoir(100, adaptation=rule, **settings).fit(WHITE, WHITE[:, 0])
    plain = EIReservoir(100, **settings).fit(WHITE, WHITE[:, 0])
    distance = [abs(each.states(WHITE)[200:].mean(0) - model.target_rate_).mean() for each in (model, plain)]
    assert distance[0] < 0.08 and distance[1] > 2 * distance[0]
    assert np.array_equal(model.excitation_, plain.excitation_)  # only inhibition learns


def test_bad_balance_is_forgotten_and_memory_comes_back():
    def remembered(**more):
        model = EIReservoir(100, in_degree=30, input_scale=0.1, random_state=1, **more).fit(
            WHITE, WHITE[:, 0]
        )
        return memory_capacity(model.states(WHITE), WHITE[:, 0], delays=40).total

    rule = InhibitoryHomeostasis(steps=2000)
    for balance in (0.5, 2.0):
        assert remembered(balance=balance, adaptation=rule) > 1.3 * remembered(balance=balance)


def test_only_the_first_sequences_are_adapted_to():
    model = adapted()[0].partial_fit(SERIES[:6], SERIES[:6, :, 0])
    inhibition = model.inhibition_.copy()
    model.partial_fit(SERIES[6:], SERIES[6:, :, 0])
    assert np.array_equal(model.inhibition_, inhibition)


def test_populations_have_their_wiring():
    model = EIReservoir(50, excitatory=0.8, in_degree=20, balance=1.3, random_state=0).fit(WHITE, WHITE[:, 0])
    assert not model.excitation_[:, 40:].any() and not model.inhibition_[:, :40].any()
    assert ((model.excitation_ > 0).sum(1) == 16).all() and ((model.inhibition_ > 0).sum(1) == 4).all()
    assert model.inhibition_.sum(1).mean() / model.excitation_.sum(1).mean() == pytest.approx(1.3, rel=0.05)


class TestRefusals:
    @pytest.mark.parametrize(
        ("setting", "match"),
        [
            ({"excitatory": 1.0}, "excitatory: got 1.0"),
            ({"gain": -1.0}, "gain: got -1.0"),
            ({"in_degree": 60}, "in_degree: got 60"),
            ({"in_degree": 1}, "in_degree=1"),
            ({"threshold": float("nan")}, "threshold"),
            ({"adaptation": "homeostasis"}, "InhibitoryHomeostasis"),
            ({"adaptation": InhibitoryHomeostasis(np.full(7, 0.5))}, "7 target rates"),
        ],
    )
    def test_settings(self, setting, match):
        with pytest.raises((ConfigError, ShapeError), match=match) as caught:
            EIReservoir(50, **{"in_degree": 20, **setting}).fit(WHITE, WHITE[:, 0])
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("target", [0.0, 1.0, [0.5, 1.5], (2.0, -1.0), (1.0, 2.0, 3.0)])
    def test_targets(self, target):
        for rule in (InhibitoryHomeostasis, InhibitoryDesign):
            with pytest.raises(ConfigError, match="target_rate"):
                rule(target)

    def test_rules(self):
        with pytest.raises(ConfigError, match="final_lr"):
            InhibitoryHomeostasis(final_lr=0.0)
        with pytest.raises(ConfigError, match="steps=0"):
            InhibitoryHomeostasis(steps=0)

    def test_arrays(self):
        E, inhibition, drive = drawn()
        with pytest.raises(ShapeError, match="drive"):
            adapt_inhibition(E, inhibition, drive[:, :3], 0.5)
        with pytest.raises(DataError, match="inhibition goes down"):
            adapt_inhibition(E, -inhibition, drive, 0.5)
        with pytest.raises(ConfigError, match="target rates"):
            design_inhibition(E, inhibition, 1.0)
        with pytest.raises(ShapeError, match="3 rates"):
            adapt_inhibition(E, inhibition, drive, 0.5, rates=[0.1, 0.2, 0.3])
