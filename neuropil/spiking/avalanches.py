"""Neuronal avalanches: bursts of activity between silences, their sizes and durations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuropil.errors import DataError
from neuropil.plotting import canvas
from neuropil.spiking.arrays import counts_array
from neuropil.spiking.power_law import PowerLaw, fit_power_law, law_normaliser

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Avalanches:
    """Avalanches in the order they happened, and the power laws through them.

    At criticality of the mean-field (branching) kind the exponents are 3/2 for sizes, 2 for durations, and sizes grow
    with the square of durations; in any critical system `size_by_duration` equals `predicted`.
    """

    sizes: NDArray[np.int64]  # [avalanches], spikes
    durations: NDArray[np.int64]  # [avalanches], bins
    size: PowerLaw
    duration: PowerLaw
    size_by_duration: float  # slope of log mean size over log duration
    predicted: float  # (duration exponent - 1) / (size exponent - 1)

    def plot(self) -> Any:
        """Sizes, durations, and mean size over duration, on logarithmic axes, as a matplotlib figure."""
        figure, panels = canvas(3)
        for axes, values, fit, name in (
            (panels[0], self.sizes, self.size, "size (spikes)"),
            (panels[1], self.durations, self.duration, "duration (bins)"),
        ):
            edges = np.unique(np.geomspace(1, values.max() + 1, 30).round())
            shares = np.histogram(values, edges)[0] / np.diff(edges) / len(values)
            axes.loglog(np.sqrt(edges[:-1] * (edges[1:] - 1)), shares, "o", color="#2f7f86", markersize=3)
            tail = np.geomspace(fit.start, fit.stop or values.max(), 50)
            scale = fit.values / len(values) / law_normaliser(fit.exponent, fit.start, fit.stop)
            axes.loglog(tail, scale * tail**-fit.exponent, color="#b5563c", linewidth=1)
            axes.set(xlabel=name, ylabel="share at one value", title=f"exponent {fit.exponent:.3g}")
        lengths, means = _mean_sizes(self.sizes, self.durations)
        panels[2].loglog(lengths, means, ".", color="#2f7f86", markersize=3)
        panels[2].set(xlabel="duration (bins)", ylabel="mean size")
        panels[2].set_title(f"slope {self.size_by_duration:.3g}, predicted {self.predicted:.3g}", fontsize=9)
        return figure


def avalanche_statistics(
    activity: ArrayLike,
    *,
    threshold: float = 0.0,
    size_start: int | None = None,
    duration_start: int | None = None,
    size_stop: int | None = None,
    duration_stop: int | None = None,
) -> Avalanches:
    """Cut population activity into avalanches and fit power laws to their sizes and durations.

    An avalanche is a run of bins with more than `threshold` spikes; its size is the spikes in it. The first and the
    last are left out where the record cuts them. Where new activity comes in before old has died out, avalanches
    merge and the exponents say little: prefer `branching_ratio` then. Beggs and Plenz (2003), "Neuronal avalanches in
    neocortical circuits"; Friedman et al. (2012) for the relation of the exponents.

    Args:
        activity: Spikes per bin, `[time]`, or spikes `[time, units]`, which are added up.
        threshold: Activity that still counts as silence, >= 0; for continuous activity a low quantile.
        size_start: Smallest size of the power law, or None to search for it; the same for durations.
        duration_start: Smallest duration of the power law.
        size_stop: Largest size of the power law, or None.
        duration_stop: Largest duration of the power law.

    Raises:
        DataError: Counts are negative, or there are too few avalanches.
        ConfigError: A range is empty.
        NonFiniteError: A count is NaN or infinite.

    >>> rng = np.random.default_rng(0)
    >>> seen = []
    >>> for _ in range(3000):  # avalanches of a critical branching process, a silent bin after each
    ...     now = 1
    ...     while now and len(seen) < 200000:
    ...         seen.append(now)
    ...         now = rng.poisson(now)
    ...     seen.append(0)
    >>> found = avalanche_statistics(seen, size_start=5, duration_start=5)
    >>> round(found.size.exponent, 1), len(found.sizes) > 2900
    (1.5, True)
    """
    counts = counts_array("avalanche_statistics", "activity", activity, (1, 2))
    counts = counts.sum(1) if counts.ndim == 2 else counts
    active = counts > threshold
    edges = np.flatnonzero(np.diff(active.astype(np.int8)))
    # a run that the record begins or ends with is of unknown length
    starts = edges[~active[edges]] + 1
    stops = edges[active[edges]] + 1
    stops = stops[stops > starts[0]] if len(starts) else stops[:0]
    starts = starts[: len(stops)]
    if len(starts) < 2:
        raise DataError(
            f"avalanche_statistics: {len(starts)} whole avalanches in {len(counts)} bins, expected many"
        )
    totals = np.concatenate([[0.0], counts.cumsum()])
    sizes = np.maximum(np.rint(totals[stops] - totals[starts]), 1).astype(np.int64)
    durations = (stops - starts).astype(np.int64)
    size = fit_power_law(sizes, start=size_start, stop=size_stop)
    duration = fit_power_law(durations, start=duration_start, stop=duration_stop)
    lengths, means = _mean_sizes(sizes, durations)
    inside = (lengths >= duration.start) & (lengths <= (duration.stop or lengths[-1]))
    weights = np.sqrt([(durations == length).sum() for length in lengths[inside]])
    slope = np.polyfit(np.log(lengths[inside]), np.log(means[inside]), 1, w=weights)[0]
    predicted = (duration.exponent - 1) / (size.exponent - 1)
    return Avalanches(sizes, durations, size, duration, float(slope), float(predicted))


def _mean_sizes(
    sizes: NDArray[np.int64], durations: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    lengths, which = np.unique(durations, return_inverse=True)
    return lengths, np.bincount(which, sizes) / np.bincount(which)
