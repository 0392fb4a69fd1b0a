"""Phrases of sequences by Lempel and Ziv (1976), each the shortest that has not occurred before it ends.

The compiled count keeps a suffix automaton of what has been read (Blumer et al. 1985), so that a sequence of length n
takes a time proportional to n; the reference searches the text again for every symbol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neuropil.errors import DataError
from neuropil.kernels.compiled import HAS_NUMBA, kernel, kernel_part, run_over

if TYPE_CHECKING:
    from jaxtyping import Int64, UInt8

Array = Any  # numpy arrays, as Numba sees them

_LARGEST_TABLE = 1 << 24  # transitions of the automaton; with more the reference takes less memory


def lempel_ziv_ends(codes: UInt8[np.ndarray, " time"]) -> Int64[np.ndarray, " phrases"]:
    """Where each phrase of a sequence of small whole numbers ends (exclusive).

    Raises DataError unless the codes are bytes in one dimension.

    >>> lempel_ziv_ends(np.array([0, 0, 0, 1, 1, 0, 1, 0], np.uint8)).tolist()  # 0.001.10.10
    [1, 4, 6, 8]
    """
    if codes.ndim != 1 or codes.dtype != np.uint8:
        raise DataError(
            f"lempel_ziv_ends: codes are {codes.dtype} {list(codes.shape)}, expected bytes [time]"
        )
    symbols = int(codes.max(initial=0)) + 1
    if not HAS_NUMBA or 2 * len(codes) * symbols > _LARGEST_TABLE:
        return np.array(phrase_ends_reference(codes.tobytes()), np.int64)
    ends, counts = np.zeros((1, len(codes)), np.int64), np.zeros(1, np.int64)
    phrases(0, 1, codes[None], symbols, counts, ends)
    return ends[0, : counts[0]].copy()


def lempel_ziv_counts(codes: UInt8[np.ndarray, "rows time"]) -> Int64[np.ndarray, " rows"]:
    """Number of phrases of every row; rows are read side by side on torch's threads.

    Raises DataError unless the codes are bytes in two dimensions.

    >>> lempel_ziv_counts(np.array([[0, 0, 0, 0], [0, 1, 1, 0]], np.uint8)).tolist()
    [2, 3]
    """
    if codes.ndim != 2 or codes.dtype != np.uint8:
        raise DataError(
            f"lempel_ziv_counts: codes are {codes.dtype} {list(codes.shape)}, expected bytes [rows, time]"
        )
    symbols = int(codes.max(initial=0)) + 1
    if not HAS_NUMBA or 2 * codes.shape[1] * symbols > _LARGEST_TABLE:
        return np.array([len(phrase_ends_reference(row.tobytes())) for row in codes], np.int64)
    counts = np.zeros(len(codes), np.int64)
    codes = np.ascontiguousarray(codes)
    run_over(phrases, len(codes), 8 * codes.size, codes, symbols, counts, np.zeros((0, 0), np.int64), grain=1)
    return counts


def phrase_ends_reference(text: bytes) -> list[int]:
    """Ends of the phrases, by search: a phrase goes on while it has occurred before, overlaps with itself included.

    >>> phrase_ends_reference(bytes([0, 1, 0, 1, 0, 1]))
    [1, 2, 6]
    """
    ends, start = [], 0
    while start < len(text):
        end, found = start + 1, 0
        # what was found for a shorter phrase is where the search for a longer one may begin
        while end <= len(text):
            found = text.find(text[start:end], found, end - 1)
            if found < 0:
                break
            end += 1
        ends.append(min(end, len(text)))
        start = ends[-1]
    return ends


@kernel_part
def extend(symbol: int, last: int, size: int, longest: Array, link: Array, follow: Array) -> tuple[int, int]:
    """Add a symbol to the automaton; its new last state and its size."""
    new = size
    size += 1
    longest[new] = longest[last] + 1
    for k in range(follow.shape[1]):
        follow[new, k] = -1
    at = last
    while at >= 0 and follow[at, symbol] < 0:
        follow[at, symbol] = new
        at = link[at]
    if at < 0:
        link[new] = 0
        return new, size
    there = follow[at, symbol]
    if longest[there] == longest[at] + 1:
        link[new] = there
        return new, size
    twin = size
    size += 1
    longest[twin] = longest[at] + 1
    for k in range(follow.shape[1]):
        follow[twin, k] = follow[there, k]
    link[twin] = link[there]
    while at >= 0 and follow[at, symbol] == there:
        follow[at, symbol] = twin
        at = link[at]
    link[there] = twin
    link[new] = twin
    return new, size


@kernel
def phrases(start: int, stop: int, codes: Array, symbols: int, counts: Array, ends: Array) -> None:
    """Count the phrases of rows `start` to `stop`; where they end goes to `ends`, if it has rows."""
    steps = codes.shape[1]
    longest, link = np.empty(2 * steps + 2, np.int32), np.empty(2 * steps + 2, np.int32)
    follow = np.empty((2 * steps + 2, symbols), np.int32)
    for row in range(start, stop):
        longest[0], link[0], last, size, count = 0, -1, 0, 1, 0
        follow[0, :] = -1
        at, length = 0, 0  # the state of the phrase so far, among what was read before its last symbol
        for t in range(steps):
            if t > 0:
                last, size = extend(codes[row, t - 1], last, size, longest, link, follow)
                # a state that was split leaves shorter strings to its twin
                while length > 0 and longest[link[at]] >= length:
                    at = link[at]
            forward = follow[at, codes[row, t]]
            if forward >= 0 and t < steps - 1:
                at, length = forward, length + 1
                continue
            if len(ends) > 0:
                ends[row, count] = t + 1
            count += 1
            at, length = 0, 0
        counts[row] = count
