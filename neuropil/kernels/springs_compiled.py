"""The loops behind `neuropil.kernels.springs`: one pass over memory each."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.addresses import part_of, stretch
from neuropil.kernels.compiled import kernel, sum_part

Array = Any  # numpy arrays, as Numba sees them

CHUNK = (
    4096  # numbers that are summed by themselves, so that sums do not depend on how the work is shared out
)


@kernel
def add_pull(start: int, stop: int, rows: Array, strength: Array) -> None:
    """`gradient += strength * (stiffness * (weight - anchor))` for places `start` to `stop` of all numbers.

    A row holds the addresses of these four, in the order gradient, weight, anchor, stiffness.
    """
    scale = strength[0]
    for row in range(len(rows)):
        first, count = stretch(rows, row, start, stop)
        if count <= 0:
            continue
        gradient = part_of(rows, row, 0, first, count, strength)
        weight = part_of(rows, row, 1, first, count, strength)
        anchor = part_of(rows, row, 2, first, count, strength)
        stiffness = part_of(rows, row, 3, first, count, strength)
        for i in range(count):
            gradient[i] += scale * (stiffness[i] * (weight[i] - anchor[i]))


@sum_part
def pull_row(weight: Array, anchor: Array, stiffness: Array, strength: Any, pull: Array) -> Any:
    """`pull = stiffness * (weight - anchor) * strength`; returns the sum of `pull * (weight - anchor)`."""
    total = pull.dtype.type(0)
    for i in range(len(pull)):
        moved = weight[i] - anchor[i]
        pull[i] = moved * stiffness[i] * strength
        total += pull[i] * moved
    return total


@kernel
def find_pulls(start: int, stop: int, rows: Array, strength: Array, sums: Array) -> None:
    """Pulls of chunks `start` to `stop` of all numbers, and the sum of each.

    A row holds the addresses of weight, anchor, stiffness and pull.
    """
    scale = strength[0]
    row = 0
    for chunk in range(start, stop):
        first_place, last_place = chunk * CHUNK, min((chunk + 1) * CHUNK, rows[len(rows) - 1, 4])
        total = 0.0
        while rows[row, 4] <= first_place:
            row += 1
        here = row
        while here < len(rows) and (here == row or rows[here - 1, 4] < last_place):
            first, count = stretch(rows, here, first_place, last_place)
            if count > 0:
                total += pull_row(
                    part_of(rows, here, 0, first, count, strength),
                    part_of(rows, here, 1, first, count, strength),
                    part_of(rows, here, 2, first, count, strength),
                    scale,
                    part_of(rows, here, 3, first, count, strength),
                )
            here += 1
        sums[chunk] = total


@kernel
def add_pull_and_check(
    start: int, stop: int, targets: Array, rows: Array, strength: Array, found: Array
) -> None:
    """Add the pulls of chunks `start` to `stop` to the gradients; the sum of each, and last whether a number is bad.

    Targets hold the addresses of gradients, rows those of weight, anchor and stiffness. Pulls of a chunk wait in the
    nearest cache, so that they are found as `find_pulls` finds them.
    """
    scale = strength[0]
    pulls = np.empty(CHUNK, strength.dtype)
    row = 0
    for chunk in range(start, stop):
        first_place, last_place = chunk * CHUNK, min((chunk + 1) * CHUNK, rows[len(rows) - 1, 3])
        total = 0.0
        while rows[row, 3] <= first_place:
            row += 1
        here = row
        while here < len(rows) and (here == row or rows[here - 1, 3] < last_place):
            first, count = stretch(rows, here, first_place, last_place)
            if count > 0:
                gradient, pull = part_of(targets, here, 0, first, count, strength), pulls[:count]
                total += pull_row(
                    part_of(rows, here, 0, first, count, strength),
                    part_of(rows, here, 1, first, count, strength),
                    part_of(rows, here, 2, first, count, strength),
                    scale,
                    pull,
                )
                bad = 0
                for i in range(count):
                    pulled = gradient[i] + pull[i]
                    gradient[i] = pulled
                    bad += pulled - pulled != 0
                if bad:
                    found[-1] = 1.0
            here += 1
        found[chunk] = total
