"""Power laws in counts: the exponent, where it begins, and whether an exponential would do as well."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import erfc, zeta

from neuropil.errors import ConfigError, DataError
from neuropil.plotting import canvas
from neuropil.spiking.arrays import check_whole, finite_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_CANDIDATES = 60  # places where the tail may begin that are tried
_FEWEST = 50  # values that a tail must have when its beginning is searched for
_STEEPEST = 8.0


@dataclass(frozen=True)
class PowerLaw:
    """A fit of `p(x) ~ x ** -exponent` to whole numbers from `start` to `stop`."""

    exponent: float
    standard_error: float
    start: int
    stop: int | None  # None: no upper end
    values: int  # in the tail
    distance: float  # Kolmogorov-Smirnov, of the tail and the fit
    against_exponential: float  # log-likelihood ratio, positive where the power law fits better
    p_value: float  # of that ratio's sign, two-sided
    tail: NDArray[np.int64]  # the values, sorted

    def plot(self) -> Any:
        """The share of values at least as large, with the fit, on logarithmic axes, as a matplotlib figure."""
        figure, (axes,) = canvas()
        sizes = np.unique(self.tail)
        above = 1 - np.searchsorted(self.tail, sizes) / len(self.tail)
        axes.loglog(sizes, above, ".", color="#2f7f86", markersize=4)
        fitted = 1 - _below(sizes - 1, self.exponent, self.start, self.stop)
        axes.loglog(sizes, np.maximum(fitted, 1e-300), color="#b5563c", linewidth=1)
        axes.set(xlabel="size", ylabel="share at least as large", ylim=(0.5 / len(self.tail), 1.5))
        axes.set_title(f"exponent {self.exponent:.3g} from {self.start}", fontsize=9)
        return figure


def fit_power_law(values: ArrayLike, *, start: int | None = None, stop: int | None = None) -> PowerLaw:
    """Maximum likelihood fit of a power law to whole numbers; a line through a histogram is not one.

    Where the law begins is given as `start`, or chosen so that data and fit are nearest (the smallest
    Kolmogorov-Smirnov distance of tails with 50 values or more). `stop` is the largest value counted, for sizes that
    the system or the record cuts off. The alternative is an exponential over the same range; Vuong's test says
    whether the difference counts. Clauset, Shalizi and Newman (2009), "Power-law distributions in empirical data".

    Args:
        values: Whole numbers of 1 or more.
        start: Smallest value of the law, or None to search for it.
        stop: Largest value of the law, or None.

    Raises:
        DataError: Values are not whole and positive, or too few of them lie in the range.
        ConfigError: The range is empty.
        NonFiniteError: A value is NaN or infinite.

    >>> rng = np.random.default_rng(0)
    >>> round(fit_power_law(rng.zipf(2.5, 20000), start=1).exponent, 1)
    2.5
    """
    array = finite_array("fit_power_law", "values", values, (1,))
    if (array != array.round()).any() or (array < 1).any():
        raise DataError(
            "fit_power_law: values hold fractions or numbers below 1, expected whole numbers of 1 or more"
        )
    sizes = np.sort(array.astype(np.int64))
    if stop is not None:
        check_whole("fit_power_law", "stop", stop, 2)
        sizes = sizes[sizes <= stop]
    if start is None:
        start = _best_start(sizes, stop)
    check_whole("fit_power_law", "start", start, 1)
    if stop is not None and stop <= start:
        raise ConfigError(f"fit_power_law: stop={stop} lies at or below start={start}")
    tail = sizes[sizes >= start]
    if len(np.unique(tail)) < 2:
        raise DataError(f"fit_power_law: {len(tail)} values from {start} on, expected several different ones")
    exponent = _exponent(tail, start, stop)
    ratio, p_value = _against_exponential(tail, exponent, start, stop)
    return PowerLaw(
        exponent=exponent,
        standard_error=_standard_error(tail, exponent, start, stop),
        start=start,
        stop=stop,
        values=len(tail),
        distance=_distance(tail, exponent, start, stop),
        against_exponential=ratio,
        p_value=p_value,
        tail=tail,
    )


def _best_start(sizes: NDArray[np.int64], stop: int | None) -> int:
    """Where the tail begins that its own fit is nearest to."""
    tried = np.unique(sizes)
    tried = tried[len(sizes) - np.searchsorted(sizes, tried) >= _FEWEST]
    tried = tried[tried < sizes[-1]]
    if not len(tried):
        raise DataError(
            f"fit_power_law: {len(sizes)} values are too few to search for where the law begins (a tail needs "
            f"{_FEWEST}); give start"
        )
    if len(tried) > _CANDIDATES:
        tried = np.unique(tried[np.geomspace(1, len(tried), _CANDIDATES).astype(int) - 1])
    found = []
    for start in tried.tolist():
        tail = sizes[np.searchsorted(sizes, start) :]
        found.append((_distance(tail, _exponent(tail, start, stop), start, stop), start))
    return int(min(found)[1])


def _exponent(tail: NDArray[np.int64], start: int, stop: int | None) -> float:
    mean_log = float(np.log(tail).mean())
    low = 1.0001 if stop is None else 0.05
    found = minimize_scalar(
        lambda a: math.log(law_normaliser(a, start, stop)) + a * mean_log,
        bounds=(low, _STEEPEST),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(found.x)


def law_normaliser(exponent: float, start: int, stop: int | None) -> float:
    """Sum of `x ** -exponent` from `start` to `stop`.

    >>> round(law_normaliser(2.0, 1, None), 4)  # pi ** 2 / 6
    1.6449
    """
    if stop is None:
        return float(zeta(exponent, start))
    if exponent > 1:
        return float(zeta(exponent, start) - zeta(exponent, stop + 1))
    return float((np.arange(start, stop + 1) ** -exponent).sum())


def _standard_error(tail: NDArray[np.int64], exponent: float, start: int, stop: int | None) -> float:
    """From the curvature of the likelihood."""
    step = 1e-3
    logs = [math.log(law_normaliser(exponent + offset, start, stop)) for offset in (-step, 0.0, step)]
    curvature = (logs[0] - 2 * logs[1] + logs[2]) / step**2
    return 1 / math.sqrt(max(curvature, 1e-12) * len(tail))


def _below(sizes: NDArray[np.int64], exponent: float, start: int, stop: int | None) -> NDArray[np.float64]:
    """Share of the law at or below each size."""
    if exponent > 1:
        upto = zeta(exponent, start) - zeta(exponent, sizes + 1)
    else:
        sums = np.concatenate([[0.0], (np.arange(start, (stop or start) + 1) ** -exponent).cumsum()])
        upto = sums[sizes - start + 1]
    below: NDArray[np.float64] = np.asarray(upto, np.float64) / law_normaliser(exponent, start, stop)
    return below


def _distance(tail: NDArray[np.int64], exponent: float, start: int, stop: int | None) -> float:
    sizes = np.unique(tail)
    seen = np.searchsorted(tail, sizes, side="right") / len(tail)
    return float(abs(seen - _below(sizes, exponent, start, stop)).max())


def _against_exponential(
    tail: NDArray[np.int64], exponent: float, start: int, stop: int | None
) -> tuple[float, float]:
    """Log-likelihood ratio to the best exponential over the same range, and Vuong's p value."""
    power = -exponent * np.log(tail) - math.log(law_normaliser(exponent, start, stop))
    rate, floor = _rate(tail, start, stop)
    difference = power - (floor - rate * (tail - start))
    ratio, spread = float(difference.sum()), float(difference.std() * math.sqrt(len(tail)))
    return ratio, float(erfc(abs(ratio) / spread / math.sqrt(2))) if spread > 0 else 1.0


def _rate(tail: NDArray[np.int64], start: int, stop: int | None) -> tuple[float, float]:
    """Rate of the likeliest exponential, and the logarithm of its share at `start`."""
    mean = float((tail - start).mean())
    if stop is None:
        rate = math.log1p(1 / mean)
        return rate, math.log(-math.expm1(-rate))
    places = np.arange(stop - start + 1)

    def cost(rate: float) -> float:
        return float(np.logaddexp.reduce(-rate * places)) + rate * mean

    found = minimize_scalar(cost, bounds=(-1.0, 10.0), method="bounded", options={"xatol": 1e-9})
    return float(found.x), -float(np.logaddexp.reduce(-found.x * places))
