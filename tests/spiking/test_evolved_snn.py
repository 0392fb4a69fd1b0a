"""Evolved controllers: the loss, the genes, and what evolution finds."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from neuropil.errors import ConfigError, MissingExtraError, NonFiniteError, ShapeError
from neuropil.kernels.spiking_controller import NEURON_ROWS, PAIR_ROWS
from neuropil.spiking import SpikingControllerRegressor
from neuropil.spiking.evolved_snn import RANGES, decode, gene_rows, mimicry_loss

VARIANTS = ("lif", "recurrent", "iwta", "recurrent_iwta")


def signals(sequences: int = 8, steps: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 6, (sequences, 1))
    errors = np.sin(phase + np.linspace(0, 9, steps))
    return errors, 2 * errors


def regressor(
    variant: str = "iwta",
) -> tuple[SpikingControllerRegressor, dict[str, str], tuple[np.ndarray, np.ndarray]]:
    model = SpikingControllerRegressor(4, variant, generations=15, population=8, sigma=0.2)
    # the loss, not the error of each step, is what evolution lowers
    return model, {}, signals()


def plain() -> tuple[SpikingControllerRegressor, dict[str, str], tuple[np.ndarray, np.ndarray]]:
    return regressor("recurrent")


PARTS = [("estimator", regressor), ("estimator", plain)]


def test_the_loss_is_the_error_and_the_lack_of_correlation() -> None:
    rng = np.random.default_rng(0)
    said, wanted = rng.normal(size=(4, 3, 50)), rng.normal(size=(3, 50))
    for k in range(4):
        parts = [
            np.abs(s - w).mean() + 1 - np.corrcoef(s, w)[0, 1] for s, w in zip(said[k], wanted, strict=True)
        ]
        assert mimicry_loss(said[k], wanted) == pytest.approx(np.mean(parts))
    np.testing.assert_allclose(mimicry_loss(said, wanted), [mimicry_loss(each, wanted) for each in said])
    assert mimicry_loss(np.zeros((3, 50)), wanted) == pytest.approx(np.abs(wanted).mean() + 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_genes_are_places_in_the_papers_ranges(variant: str) -> None:
    rows = gene_rows(variant)
    many = sum(3 if name in PAIR_ROWS else 6 for name in rows) + 1
    low, high = (decode(np.full((2, many), end), 6, variant, 0.3) for end in (0.0, 1.0))
    for name, (bottom, top) in RANGES.items():
        for found, end in ((low, bottom), (high, top)):
            table, names = (found.pairs, PAIR_ROWS) if name in PAIR_ROWS else (found.neurons, NEURON_ROWS)
            assert (table[:, names.index(name)] == (end if name in rows else 0)).all(), name
    assert low.readout_decay.tolist() == [0, 0] and high.readout_decay.tolist() == [0.3, 0.3]


def test_each_gene_moves_one_parameter() -> None:
    many = 4 * 3 + 6 * 6 + 1
    base = decode(np.full((1, many), 0.5), 6, "lif")
    moved = [decode(np.full((1, many), 0.5) + 0.1 * (np.arange(many) == g), 6, "lif") for g in range(many)]
    places = [tuple(int((a != b).sum()) for a, b in zip(base, other, strict=True)) for other in moved]
    assert all(sum(place) == 1 for place in places)


def test_evolution_lowers_the_loss_far_below_silence() -> None:
    errors, wanted = signals()
    model = SpikingControllerRegressor(8, "lif", generations=150, population=16, sigma=0.2).fit(
        errors, wanted
    )
    silence = float(mimicry_loss(np.zeros_like(wanted), wanted))
    assert model.loss_ < 0.6 * silence
    assert mimicry_loss(model.predict(errors), wanted) == pytest.approx(model.loss_)
    assert len(model.loss_curve_) == 150


def test_a_sequence_is_answered_from_rest_whatever_came_before() -> None:
    errors, wanted = signals()
    model = SpikingControllerRegressor(4, generations=5, population=8).fit(errors, wanted)
    np.testing.assert_array_equal(model.predict(errors)[3:], model.predict(errors[3:]))
    np.testing.assert_array_equal(model.predict(errors)[:, :20], model.predict(errors[:, :20]))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"neurons": 5}, "even number"),
        ({"neurons": 0}, "neurons=0"),
        ({"variant": "iwtaa"}, "did you mean 'iwta'"),
        ({"sigma": 0.0}, "sigma=0"),
        ({"longest_readout": 1.5}, "longest_readout=1.5"),
        ({"population": 2}, "population=2"),
    ],
)
def test_settings_out_of_range_are_one_line(settings: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        SpikingControllerRegressor(**settings).fit(*signals())  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_signals_that_do_not_fit() -> None:
    errors, wanted = signals()
    with pytest.raises(ShapeError, match="expected one shape"):
        SpikingControllerRegressor().fit(errors, wanted[:, 1:])
    with pytest.raises(NonFiniteError):
        SpikingControllerRegressor().fit(errors, wanted * np.nan)


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(MissingExtraError, match=r"neuropil\[evolution\]"):
        SpikingControllerRegressor().fit(*signals())
