"""Time surfaces around events, and features that learn from them with selection thresholds, event by event.

At an event of channel `c` at `(x, y)` and time `t` each pixel of the square around it holds how recent its own last
event is, and the square is brought to length one:

    S[i] = exp(-(t - T[i]) / tau)        T[i]: time of the pixel's last event, S[i] = 0 if it had none
    s    = S / |S|
    a[k] = w[k] . s                      similarity to each feature, whose w[k] have length one

    eligible = {k: a[k] > theta[k]}
    none:    theta[k] -= fall for every k                        a miss
    else:    k = the most similar of the eligible                the winner
             w[k] = (1 - rate) w[k] + rate s, brought to length one again;  theta[k] += rise

Afshar, Ralph, Xu, Tapson, van Schaik and Cohen (2020), "Event-based feature extraction using adaptive selection
thresholds"; time surfaces: Lagorce et al. (2017), "HOTS".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neuropil.kernels.compiled import HAS_NUMBA
from neuropil.kernels.surfaces_compiled import fill_surfaces, match_events

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEVER = np.iinfo(np.int64).min // 2  # time of a pixel's last event when it had none
MISSED = -1  # winner of an event that no feature was near enough to


class EventColumns(NamedTuple):
    """Events in the order of their time, a column a field."""

    t: NDArray[np.int64]  # microseconds
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    channel: NDArray[np.int64]


class MatchRates(NamedTuple):
    """How far an event moves what it meets; all zero: events are matched and nothing is learned."""

    learning: float = 0.0  # share of the surface that a winner takes over
    rise: float = 0.0  # of a winner's threshold
    fall: float = 0.0  # of all thresholds at a miss


def surface_channels(channels: int, own: bool) -> int:
    """Channels that a surface shows: the event's own, or all."""
    return 1 if own else channels


def time_surface_scan(
    events: EventColumns, last: NDArray[np.int64], *, radius: int, tau: float, own: bool
) -> NDArray[np.float64]:
    """Surface of length one at every event, `[events, channels shown * (2 radius + 1)^2]`; updates `last`.

    `last` is `[channels, height, width]`, microseconds, `NEVER` where nothing happened yet; `tau` in microseconds.

    >>> last = np.full((1, 3, 3), NEVER)
    >>> events = EventColumns(*np.array([[0, 1000], [0, 1], [1, 1], [0, 0]]))
    >>> time_surface_scan(events, last, radius=1, tau=1e12, own=True)[1].reshape(3, 3).round(3)[1].tolist()
    [0.707, 0.707, 0.0]
    """
    size = surface_channels(len(last), own) * (2 * radius + 1) ** 2
    surfaces = np.zeros((len(events.t), size))
    run = fill_surfaces if HAS_NUMBA else surfaces_reference
    run(*events, last, radius, float(tau), own, surfaces)
    return surfaces


def match_scan(
    events: EventColumns,
    last: NDArray[np.int64],
    weight: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    rates: MatchRates,
    *,
    radius: int,
    tau: float,
    own: bool,
) -> NDArray[np.int64]:
    """Winner of every event, `MISSED` where there was none; `last`, `weight` and `thresholds` are brought up to date.

    `weight` is `[surface, features]`, its columns of length one; `thresholds` `[features]`, minus infinity where every
    event may be taken.
    """
    winners = np.empty(len(events.t), np.int64)
    run = match_events if HAS_NUMBA else match_reference
    run(*events, last, weight, thresholds, *rates, radius, float(tau), own, winners)
    return winners


def surfaces_reference(
    t: Any, x: Any, y: Any, channel: Any, last: Any, radius: int, tau: float, own: bool, surfaces: Any
) -> None:
    """`fill_surfaces` in numpy: the definition that the compiled loop is held against."""
    side = 2 * radius + 1
    for event in range(len(t)):
        last[channel[event], y[event], x[event]] = t[event]
        shown = last[channel[event], None] if own else last
        padded = np.pad(shown, ((0, 0), (radius, radius), (radius, radius)), constant_values=NEVER)
        square = padded[:, y[event] : y[event] + side, x[event] : x[event] + side].ravel()
        surface = np.where(square == NEVER, 0.0, np.exp(-(t[event] - square).clip(0) / tau))
        surfaces[event] = surface / np.sqrt((surface * surface).sum())


def match_reference(
    t: Any, x: Any, y: Any, channel: Any, last: Any, weight: Any, thresholds: Any,
    rate: float, rise: float, fall: float, radius: int, tau: float, own: bool, winners: Any,
) -> None:  # fmt: skip
    """`match_events` in numpy: the definition that the compiled loop is held against."""
    surfaces = np.zeros((len(t), len(weight)))
    surfaces_reference(t, x, y, channel, last, radius, tau, own, surfaces)
    for event, surface in enumerate(surfaces):
        similar = surface @ weight
        eligible = np.flatnonzero(similar > thresholds)
        if not len(eligible):
            winners[event] = MISSED
            thresholds -= fall
            continue
        winners[event] = best = eligible[similar[eligible].argmax()]
        if rate:
            moved = (1 - rate) * weight[:, best] + rate * surface
            weight[:, best] = moved / np.sqrt((moved * moved).sum())
        thresholds[best] += rise
