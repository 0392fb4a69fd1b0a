"""How many spikes a spike brings about, also where only a few neurons are seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar

from neuropil.errors import DataError
from neuropil.plotting import canvas
from neuropil.spiking.arrays import check_whole, counts_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class BranchingRatio:
    """The branching ratio and what it was read from."""

    ratio: float  # spikes that a spike brings about in the next step
    one_step: (
        float  # slope of the next step's activity over this one's: too small where not all neurons are seen
    )
    time_constant: float  # steps after which activity has fallen to 1/e; infinite from ratio 1 on
    amplitude: float  # share of the fluctuations that is seen, `slopes = amplitude * ratio ** k`
    slopes: NDArray[
        np.float64
    ]  # [lags], slope of the activity `k` steps later over the present one, k = 1, 2, ...
    residual: float  # root mean square of what the fit leaves of the slopes

    def plot(self) -> Any:
        """Slopes and their fit over the lag, as a matplotlib figure."""
        figure, (axes,) = canvas()
        lags = np.arange(1, len(self.slopes) + 1)
        axes.plot(lags, self.slopes, ".", color="#2f7f86", markersize=4, label="slopes")
        axes.plot(lags, self.amplitude * self.ratio**lags, color="#b5563c", label="fit")
        axes.plot(lags, self.one_step**lags, "--", color="#9aa1ab", linewidth=1, label="from one step")
        axes.set(xlabel="lag (steps)", ylabel="slope", title=f"branching ratio {self.ratio:.4g}")
        axes.legend(frameon=False, fontsize=8)
        return figure


def branching_ratio(activity: ArrayLike, *, lags: int | None = None) -> BranchingRatio:
    """Branching ratio of population activity from regressions over many lags, not biased by unseen neurons.

    In a branching process with immigration the regression of the activity `k` steps later on the present one has
    slope `m ** k`. Where only a share of the neurons is seen, every slope shrinks by one common factor, and their
    decay still tells `m`; the slope of one step alone is too small. Wilting and Priesemann (2018), "Inferring
    collective dynamical states from widely unobserved systems".

    Args:
        activity: Spikes in each bin, `[time]`, or `[trials, time]` with one mean for all; bins about as long as
            activity takes to pass from neuron to neuron.
        lags: Number of lags that are fitted; by default a fiftieth of the bins, between 5 and 100. A few time
            constants are enough; many more only add noise.

    Raises:
        DataError: There is no variation, the bins are too few, or counts are negative.
        ConfigError: `lags` is out of range.
        NonFiniteError: A count is NaN or infinite.

    >>> rng = np.random.default_rng(0)
    >>> seen, now = [], 0
    >>> for _ in range(20000):
    ...     now = rng.poisson(0.9 * now + 5)  # every spike brings about 0.9 others
    ...     seen.append(rng.binomial(now, 0.05))  # and one of twenty is seen
    >>> found = branching_ratio(seen, lags=20)
    >>> round(found.ratio, 1), found.one_step < 0.5
    (0.9, True)
    """
    counts = counts_array("branching_ratio", "activity", activity, (1, 2))
    counts = np.atleast_2d(counts)
    bins = counts.shape[1]
    if bins < 10:
        raise DataError(f"branching_ratio: {bins} bins, expected 10 or more")
    lags = min(max(5, bins // 50), 100, bins // 2) if lags is None else lags
    check_whole("branching_ratio", "lags", lags, 2, bins // 2)
    if counts.var() == 0:
        raise DataError("branching_ratio: activity never changes, there is nothing to regress")
    slopes = np.array([_slope(counts[:, :-k], counts[:, k:]) for k in range(1, lags + 1)])
    ratio = _decay(slopes)
    amplitude, residual = _amplitude(ratio, slopes)
    constant = -1 / math.log(ratio) if 0 < ratio < 1 else math.inf * (ratio >= 1) if ratio else 0.0
    return BranchingRatio(ratio, float(slopes[0]), constant, amplitude, slopes, math.sqrt(residual / lags))


def _slope(now: NDArray[np.float64], later: NDArray[np.float64]) -> float:
    """Of the line through all pairs, over all trials."""
    x, y = now - now.mean(), later - later.mean()
    return float((x * y).sum() / max(float((x * x).sum()), np.finfo(float).tiny))


def _decay(slopes: NDArray[np.float64]) -> float:
    """The ratio of the geometric sequence nearest to the slopes."""
    tried = np.linspace(0.0, 1.2, 241)
    errors = [_amplitude(ratio, slopes)[1] for ratio in tried]
    best = int(np.argmin(errors))
    low, high = tried[max(best - 1, 0)], tried[min(best + 1, len(tried) - 1)]
    found = minimize_scalar(
        lambda ratio: _amplitude(ratio, slopes)[1],
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return float(found.x)


def _amplitude(ratio: float, slopes: NDArray[np.float64]) -> tuple[float, float]:
    """The best amplitude for a ratio, and the sum of squares that is left."""
    powers = ratio ** np.arange(1, len(slopes) + 1)
    amplitude = float(powers @ slopes / max(float(powers @ powers), np.finfo(float).tiny))
    return amplitude, float(((slopes - amplitude * powers) ** 2).sum())
