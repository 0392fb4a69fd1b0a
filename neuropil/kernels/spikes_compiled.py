"""The loops behind `neuropil.kernels.spikes`: find who was active, add up what they drive.

Events lie chunk by chunk of neurons: the rows of weights of one chunk stay in the second-level cache while all samples
add up theirs, in registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part
from neuropil.kernels.vector import load, lowest_bit, nonzero, numbers_at, scaled_add, store, zeros

Array = Any  # numpy arrays, as Numba sees them

CHUNK = 512  # neurons: fewer leave so few events of a sample that the loops over them cost more than the sums


@kernel_part
def note_active(values: Array, first: int, neurons: Array, found: int, parts: tuple[int, ...]) -> int:
    """Write who of the neurons from `first` on is active to `neurons`, from place `found` on; the next free place."""
    none, size = values.dtype.type(0), len(parts) * 64 // values.itemsize
    even = len(values) // size * size
    for begin in range(0, even, size):
        word = nonzero(values, begin, parts)
        while word != 0:
            neurons[found] = first + begin + lowest_bit(word)
            found += 1
            word &= word - np.uint64(1)
    for j in range(even, len(values)):
        if values[j] != none:
            neurons[found] = first + j
            found += 1
    return found


@kernel
def find_events(
    start: int,
    stop: int,
    spikes: Array,
    ends: Array,
    neurons: Array,
    size: int,
    parts: tuple[int, ...],
) -> None:
    """Active ones among neurons `start` to `stop`, a multiple of `size`, by chunk, sample and neuron.

    `ends [chunks, samples]` says where a sample's events in its chunk's row of `neurons` end.
    """
    for first in range(start, stop, size):
        chunk, found = first // size, 0
        for sample in range(len(spikes)):
            values = spikes[sample, first : min(first + size, stop)]
            found = note_active(values, first, neurons[chunk], found, parts)
            ends[chunk, sample] = found


@kernel_part
def add_columns(
    at: int,
    begin: int,
    end: int,
    first: bool,
    sample: int,
    neurons: Array,
    spikes: Array,
    source: Array,
    target: Array,
    columns: int,
    parts: tuple[int, ...],
) -> None:
    """One vector of a sample's sums, whose first column is `at`: set if `first`, and events added."""
    to = sample * columns + at
    sums = zeros(target, parts) if first else load(target, to, parts)
    for k in range(np.uintp(begin), np.uintp(end)):
        n = np.intp(neurons[k])
        sums = scaled_add(spikes[sample, n], load(source, n * columns + at, parts), sums)
    store(target, to, sums)


@kernel
def add_rows(
    start: int,
    stop: int,
    ends: Array,
    neurons: Array,
    spikes: Array,
    weight: Array,
    out: Array,
    parts: tuple[int, ...],
    part: tuple[int],
) -> None:
    """Columns `start` to `stop` of `out[sample] = sum of spikes[sample, n] * weight[n]` over active neurons n.

    As many columns at a time as `parts` hold, then as `part` holds, then one by one.
    """
    single, columns = 64 // weight.itemsize, weight.shape[1]
    width = len(parts) * single
    wide = start + (stop - start) // width * width
    even = start + (stop - start) // single * single
    source, target = weight.reshape(-1), out.reshape(-1)
    for chunk in range(len(ends)):
        end, who, first = 0, neurons[chunk], chunk == 0
        for sample in range(len(out)):
            begin, end = end, ends[chunk, sample]
            if begin == end and not first:
                continue
            for at in range(start, wide, width):
                add_columns(at, begin, end, first, sample, who, spikes, source, target, columns, parts)
            for at in range(wide, even, single):
                add_columns(at, begin, end, first, sample, who, spikes, source, target, columns, part)
            for at in range(even, stop):
                total = weight.dtype.type(0) if first else out[sample, at]
                for k in range(begin, end):
                    total += spikes[sample, who[k]] * weight[who[k], at]
                out[sample, at] = total


@kernel
def add_alone(
    start: int,
    stop: int,
    spikes: int,
    weight: int,
    out: int,
    neurons: int,
    outputs: int,
    most: int,
    active: Array,
    parts: tuple[int, ...],
    part: tuple[int],
) -> None:
    """Columns `start` to `stop` of one sample's sums, if no more than `most` of its neurons are active.

    `spikes`, `weight` and `out` are addresses: a call with three arrays would take longer by a microsecond.
    Every thread finds the spikes itself. How many, it leaves in `active`, of the weights' dtype.
    """
    values = numbers_at(spikes, neurons, active)
    who = np.empty(neurons, np.int32)
    count = note_active(values, 0, who, 0, parts)
    active[0] = count
    if count > most:
        return
    source, target = numbers_at(weight, neurons * outputs, active), numbers_at(out, outputs, active)
    single = 64 // active.itemsize
    width = len(parts) * single
    wide = start + (stop - start) // width * width
    even = start + (stop - start) // single * single
    sample = values.reshape((1, neurons))
    for at in range(start, wide, width):
        add_columns(at, 0, count, True, 0, who, sample, source, target, outputs, parts)
    for at in range(wide, even, single):
        add_columns(at, 0, count, True, 0, who, sample, source, target, outputs, part)
    for at in range(even, stop):
        total = active.dtype.type(0)
        for k in range(count):
            total += values[who[k]] * source[who[k] * outputs + at]
        target[at] = total
