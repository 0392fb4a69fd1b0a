"""Branching ratio, avalanches, power laws and complexity against processes whose answers are known."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuropil.errors import ConfigError, DataError
from neuropil.spiking import avalanche_statistics, branching_ratio, fit_power_law, lempel_ziv_complexity


def process(ratio, drive, bins, seed=0):
    """Spikes per bin of a branching process with immigration."""
    rng = np.random.default_rng(seed)
    counts, now = np.empty(bins), round(drive / (1 - ratio))
    for index in range(bins):
        now = rng.poisson(ratio * now + drive)
        counts[index] = now
    return counts


def cascades(number, ratio=1.0, seed=0, longest=3000):
    """Avalanches of a branching process, one after another, a silent bin between."""
    rng = np.random.default_rng(seed)
    counts = [0]
    for _ in range(number):
        now, steps = 1, 0
        while now and steps < longest:
            counts.append(now)
            now, steps = rng.poisson(ratio * now), steps + 1
        counts.append(0)
    return np.array(counts, float)


def branching():
    return partial(branching_ratio, process(0.8, 5, 800))


def avalanches():
    return partial(avalanche_statistics, cascades(400))


def law():
    return partial(fit_power_law, np.random.default_rng(0).zipf(2.0, 300).astype(float))


def complexity():
    return partial(lempel_ziv_complexity, np.random.default_rng(0).integers(0, 2, 300).astype(float))


PARTS = [("analysis", branching), ("analysis", avalanches), ("analysis", law), ("analysis", complexity)]


@pytest.mark.parametrize("ratio", [0.5, 0.9, 0.98])
def test_the_ratio_of_a_process_is_found_whole_and_subsampled(ratio):
    counts = process(ratio, 100 * (1 - ratio), 40000)
    seen = np.random.default_rng(1).binomial(counts.astype(int), 0.1)
    lags = min(int(3 / (1 - ratio)) + 2, 100)
    whole, part = branching_ratio(counts, lags=lags), branching_ratio(seen, lags=lags)
    tolerance = 0.05 if ratio < 0.9 else 0.012
    assert whole.ratio == pytest.approx(ratio, abs=tolerance) and whole.one_step == pytest.approx(
        ratio, abs=0.01
    )
    assert part.ratio == pytest.approx(ratio, abs=2 * tolerance)
    assert part.one_step < 0.8 * ratio, "what the bias costs without the correction"
    assert whole.time_constant == pytest.approx(-1 / math.log(whole.ratio))


def test_without_a_link_in_time_there_is_no_branching():
    counts = np.random.default_rng(0).poisson(20, 20000)
    found = branching_ratio(counts, lags=10)
    assert abs(found.one_step) < 0.02 and abs(found.amplitude * found.ratio) < 0.02


def test_trials_are_regressed_together():
    trials = np.stack([process(0.9, 10, 2000, seed) for seed in range(12)])
    assert branching_ratio(trials, lags=25).ratio == pytest.approx(0.9, abs=0.02)


def test_branching_refuses_what_has_no_answer():
    with pytest.raises(DataError, match="never changes"):
        branching_ratio(np.ones(100))
    with pytest.raises(DataError, match="counts >= 0"):
        branching_ratio(np.r_[-1.0, np.arange(50)])
    with pytest.raises(ConfigError, match="lags"):
        branching_ratio(np.arange(50.0), lags=1)
    with pytest.raises(DataError, match="10 or more"):
        branching_ratio(np.arange(5.0))


def test_runs_between_silences_are_avalanches():
    counts = np.array([3, 0, 1, 2, 0, 0, 5, 0, 1, 1, 1, 0, 9])  # the first and last are cut by the record
    found = avalanche_statistics(counts, size_start=1, duration_start=1)
    assert found.sizes.tolist() == [3, 5, 3] and found.durations.tolist() == [2, 1, 3]
    spikes = np.zeros((13, 9))
    for row, count in zip(spikes, counts, strict=True):
        row[:count] = 1
    assert avalanche_statistics(spikes, size_start=1, duration_start=1).sizes.tolist() == [3, 5, 3]


def test_critical_avalanches_have_the_mean_field_exponents():
    found = avalanche_statistics(cascades(20000), size_start=10, duration_start=15)
    assert found.size.exponent == pytest.approx(1.5, abs=0.05)
    assert found.duration.exponent == pytest.approx(2.0, abs=0.12)
    assert found.size_by_duration == pytest.approx(2.0, abs=0.15)
    assert found.predicted == pytest.approx(2.0, abs=0.3)
    assert found.size.against_exponential > 0 and found.size.p_value < 0.01


def test_sizes_follow_the_borel_distribution():
    """Exactly, at any ratio: p(s) = exp(-m s) (m s)^(s-1) / s!."""
    found = avalanche_statistics(cascades(20000, ratio=0.8), size_start=1, duration_start=1)
    for size in range(1, 6):
        wanted = math.exp(-0.8 * size) * (0.8 * size) ** (size - 1) / math.factorial(size)
        assert (found.sizes == size).mean() == pytest.approx(wanted, abs=0.012)


@pytest.mark.parametrize("exponent", [1.5, 2.0, 3.0])
def test_exponents_of_zeta_numbers_are_found_with_their_error(exponent):
    rng = np.random.default_rng(3)
    values = rng.zipf(exponent, 5000)
    fit = fit_power_law(values[values < 10**15], start=1)
    assert abs(fit.exponent - exponent) < 3.5 * fit.standard_error and fit.standard_error < 0.06
    assert fit.distance < 0.03


def test_a_cut_off_is_not_taken_for_a_steeper_law():
    sizes = np.arange(1, 101)
    weights = sizes**-1.5
    values = np.random.default_rng(0).choice(sizes, 20000, p=weights / weights.sum())
    assert fit_power_law(values, start=1, stop=100).exponent == pytest.approx(1.5, abs=0.03)
    assert fit_power_law(values, start=1).exponent > 1.55


def test_an_exponential_is_told_from_a_power_law():
    values = np.random.default_rng(0).geometric(0.2, 5000)
    fit = fit_power_law(values, start=1)
    assert fit.against_exponential < 0 and fit.p_value < 1e-3


def test_where_the_law_begins_is_found():
    rng = np.random.default_rng(0)
    tail = rng.zipf(2.5, 200000)
    tail = tail[tail >= 8][:4000]
    values = np.concatenate([rng.integers(1, 8, 6000), tail])
    fit = fit_power_law(values)
    assert 7 <= fit.start <= 11 and fit.exponent == pytest.approx(2.5, abs=0.12)


@pytest.mark.peer("powerlaw")
def test_the_powerlaw_package_finds_the_same():
    import powerlaw

    values = np.random.default_rng(5).zipf(2.2, 3000)
    for start in (1, 3):
        theirs = powerlaw.Fit(
            values, xmin=start, discrete=True, estimate_discrete=False, verbose=False
        ).power_law
        ours = fit_power_law(values, start=start)
        assert ours.exponent == pytest.approx(theirs.alpha, abs=2e-3)
        assert ours.distance == pytest.approx(theirs.D, abs=2e-3)


def test_power_laws_refuse_what_is_none():
    with pytest.raises(DataError, match="whole numbers of 1"):
        fit_power_law([0.5, 2.0])
    with pytest.raises(DataError, match="too few"):
        fit_power_law([1, 2, 3])
    with pytest.raises(DataError, match="different"):
        fit_power_law([2, 2, 2], start=2)
    with pytest.raises(ConfigError, match="at or below"):
        fit_power_law([1, 2, 3], start=3, stop=3)


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("0001101001000101", 6),  # Lempel and Ziv's own example: 0.001.10.100.1000.101
        ("00000000", 2),
        ("01010101", 3),
        ("0", 1),
        ("0110", 3),
    ],
)
def test_phrases_of_known_sequences(text, phrases):
    found = lempel_ziv_complexity([int(c) for c in text])
    assert found.phrases == phrases and found.ends[-1] == len(text)


def literal(text):
    """The definition: each phrase the shortest that does not occur in what precedes its last symbol."""
    count = start = 0
    while start < len(text):
        end = start + 1
        while end <= len(text) and text[start:end] in text[: end - 1]:
            end += 1
        count, start = count + 1, end
    return count


@given(st.text("ab", min_size=1, max_size=60))
def test_phrases_are_those_of_the_definition(text):
    assert lempel_ziv_complexity([ord(c) for c in text]).phrases == literal(text)


def test_noise_is_complex_and_order_is_not():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 2, 40000)
    assert lempel_ziv_complexity(noise).normalised == pytest.approx(1.0, abs=0.06)
    rare = rng.random(40000) < 0.05
    assert lempel_ziv_complexity(rare).normalised == pytest.approx(1.0, abs=0.12)
    assert lempel_ziv_complexity(rare).rate < 0.4
    assert lempel_ziv_complexity(np.tile([0, 1, 1], 10000)).normalised < 0.01


def test_complexity_refuses_what_is_no_sequence_of_symbols():
    with pytest.raises(DataError, match="bin it"):
        lempel_ziv_complexity([0.5, 1.0])
    with pytest.raises(DataError, match="different symbols"):
        lempel_ziv_complexity(np.arange(300))
