"""How much there is to tell about a sequence of symbols."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuropil.errors import DataError
from neuropil.kernels.lempel_ziv import lempel_ziv_ends
from neuropil.plotting import canvas
from neuropil.spiking.arrays import finite_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_SYMBOLS = 256


@dataclass(frozen=True)
class LempelZiv:
    """Complexity of a sequence by the number of phrases it takes to write it down."""

    phrases: int
    rate: float  # bits per symbol, `phrases * log2(n) / n`
    normalised: (
        float  # rate over the entropy of the single symbols: about 1 for a shuffled sequence, 0 without any
    )
    ends: NDArray[np.int64]  # [phrases], where each phrase ends (exclusive)

    def plot(self) -> Any:
        """How long the phrases are along the sequence, as a matplotlib figure."""
        figure, (axes,) = canvas()
        starts = np.concatenate([[0], self.ends[:-1]])
        axes.plot(starts, self.ends - starts, ".", color="#2f7f86", markersize=3)
        axes.set(xlabel="position in the sequence", ylabel="length of the phrase")
        axes.set_title(f"{self.phrases} phrases, {self.rate:.3g} bits per symbol", fontsize=9)
        return figure


def lempel_ziv_complexity(sequence: ArrayLike) -> LempelZiv:
    """Number of phrases of a sequence, each the shortest that has not been heard before.

    The sequence is whole numbers, at most 256 different ones: spikes, states, letters. A matrix `[time, units]` is
    read row by row. Lempel and Ziv (1976), "On the complexity of finite sequences"; the normalisation by the entropy
    of the source is that of Casali et al. (2013), "A theoretically based index of consciousness".

    Raises DataError for numbers that are not whole or too many different ones, NonFiniteError for NaN or infinity.

    >>> lempel_ziv_complexity([int(c) for c in "0001101001000101"]).phrases  # 0.001.10.100.1000.101
    6
    """
    array = finite_array("lempel_ziv_complexity", "sequence", sequence, (1, 2)).reshape(-1)
    if (array != array.round()).any():
        raise DataError(
            "lempel_ziv_complexity: sequence holds fractions, expected whole numbers; bin it first"
        )
    symbols, codes, counts = np.unique(array, return_inverse=True, return_counts=True)
    if len(symbols) > _SYMBOLS:
        raise DataError(
            f"lempel_ziv_complexity: {len(symbols)} different symbols, expected at most {_SYMBOLS}; bin them"
        )
    ends = lempel_ziv_ends(codes.astype(np.uint8))
    shares = counts / len(array)
    entropy = float(-(shares * np.log2(shares)).sum())
    rate = len(ends) * math.log2(len(array)) / len(array)
    normalised = rate / entropy if entropy > 0 else 0.0
    return LempelZiv(len(ends), rate, normalised, ends)
