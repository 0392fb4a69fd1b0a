"""The loops behind `neuropil.kernels.spikes`: find who was active, add up what they drive.

Samples take turns, chunk by chunk of neurons: the rows of weights of one chunk stay in the second-level cache while all
samples add up theirs, in registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part
from neuropil.kernels.vector import load, lowest_bit, nonzero, numbers_at, prefetch, scaled_add, store, zeros

Array = Any  # numpy arrays, as Numba sees them

AHEAD = 1024  # numbers from one that is looked at to one that is asked for, as long as it takes to come
CHUNK = 512  # neurons: fewer leave so few events of a sample that the loops over them cost more than the sums


@kernel_part
def note_active(
    values: Array, first: int, neurons: Array, worth: Array, found: int, parts: tuple[int, ...]
) -> int:
    """Write who of the neurons from `first` on is active, and its value, from place `found` on; the next free place."""
    none, size = values.dtype.type(0), len(parts) * 64 // values.itemsize
    even = len(values) // size * size
    for begin in range(0, even, size):
        for j in range(begin, begin + size, size // len(parts)):
            prefetch(values, j + AHEAD)  # may lie behind the last: nothing is read there
        word = nonzero(values, begin, parts)
        while word != 0:
            active: Any = np.intp(begin + lowest_bit(word))
            neurons[found], worth[found] = first + active, values[active]
            found += 1
            word &= word - np.uint64(1)
    for j in range(even, len(values)):
        if values[j] != none:
            neurons[found], worth[found] = first + j, values[j]
            found += 1
    return found


@kernel_part
def note_chunks(
    values: Array, found: int, ends: Array, neurons: Array, worth: Array, size: int, parts: tuple[int, ...]
) -> int:
    """Note a sample's active neurons and their values from place `found` on; the next free place.

    `ends` is told where they begin and where those of each chunk of `size` neurons end. Values are noted beside the
    neurons: adding up would have to wait for each, all the more on another core than the one that has read them.
    """
    ends[0] = found
    for first in range(0, len(values), size):
        chunk = values[first : min(first + size, len(values))]
        found = note_active(chunk, first, neurons, worth, found, parts)
        ends[first // size + 1] = found
    return found


@kernel
def find_events(
    start: int,
    stop: int,
    spikes: Array,
    ends: Array,
    neurons: Array,
    worth: Array,
    size: int,
    parts: tuple[int, ...],
) -> None:
    """Active neurons of samples `start` to `stop`, in order, and their values, from place `start * neurons` on.

    `ends [samples, 1 + chunks]` says where a sample's events begin and those of its chunks of `size` neurons end.
    """
    count = spikes.shape[1]
    found = start * count
    for sample in range(start, stop):
        found = note_chunks(spikes[sample], found, ends[sample], neurons, worth, size, parts)


@kernel_part
def add_columns(
    at: int,
    begin: int,
    end: int,
    first: bool,
    to: int,
    neurons: Array,
    worth: Array,
    source: Array,
    target: Array,
    columns: int,
    parts: tuple[int, ...],
) -> None:
    """One vector of a sample's sums, whose first column is `at`: set if `first`, and events added.

    The sample's row begins at place `to` of `target`.
    """
    to += at
    sums = zeros(target, parts) if first else load(target, to, parts)
    for k in range(np.uintp(begin), np.uintp(end)):
        n = np.intp(neurons[k])
        sums = scaled_add(worth[k], load(source, n * columns + at, parts), sums)
    store(target, to, sums)


@kernel_part
def add_chunks(
    start: int,
    stop: int,
    ends: Array,
    neurons: Array,
    worth: Array,
    weight: Array,
    out: Array,
    parts: tuple[int, ...],
    part: tuple[int],
) -> None:
    """Columns `start` to `stop` of `out[sample] = sum of worth[k] * weight[neurons[k]]` over the sample's events k.

    As many columns at a time as `parts` hold, then as `part` holds, then one by one.
    """
    single, columns = 64 // weight.itemsize, weight.shape[1]
    width = len(parts) * single
    wide = start + (stop - start) // width * width
    even = start + (stop - start) // single * single
    source, target = weight.reshape(-1), out.reshape(-1)
    for chunk in range(ends.shape[1] - 1):
        first = chunk == 0
        for sample in range(len(out)):
            begin, end, to = ends[sample, chunk], ends[sample, chunk + 1], sample * columns
            if begin == end and not first:
                continue
            for at in range(start, wide, width):
                add_columns(at, begin, end, first, to, neurons, worth, source, target, columns, parts)
            for at in range(wide, even, single):
                add_columns(at, begin, end, first, to, neurons, worth, source, target, columns, part)
            for at in range(even, stop):
                total = weight.dtype.type(0) if first else out[sample, at]
                for k in range(begin, end):
                    total += worth[k] * weight[neurons[k], at]
                out[sample, at] = total


@kernel
def add_rows(
    start: int,
    stop: int,
    ends: Array,
    neurons: Array,
    worth: Array,
    weight: Array,
    out: Array,
    parts: tuple[int, ...],
    part: tuple[int],
) -> None:
    """Columns `start` to `stop` of the sums of rows of `weight`, for events that `find_events` has found."""
    add_chunks(start, stop, ends, neurons, worth, weight, out, parts, part)


@kernel
def find_and_add(
    start: int,
    stop: int,
    spikes: int,
    weight: int,
    out: int,
    shape: tuple[int, int, int],
    size: int,
    width: int,
    most: int,
    active: Array,
    parts: tuple[int, ...],
    part: tuple[int],
) -> None:
    """Columns `start` to `stop` of the sums, `width` at a time, if no more than `most` neurons are active.

    `spikes`, `weight` and `out` are addresses of contiguous arrays, `shape` says of how many samples, neurons and
    outputs: a call with three arrays would take longer by a microsecond. Every thread finds the spikes itself. How
    many, it leaves in `active`, of the weights' dtype.
    """
    samples, count, outputs = shape
    values = numbers_at(spikes, samples * count, active)
    ends = np.empty((samples, 1 - -count // size), np.int64)
    neurons, worth = np.empty(most + count, np.int32), np.empty(most + count, active.dtype)
    found = 0
    for sample in range(samples):
        row = values[sample * count : (sample + 1) * count]
        found = note_chunks(row, found, ends[sample], neurons, worth, size, parts)
        if found > most:
            break
    active[0] = found
    if found > most:
        return
    rows = numbers_at(weight, count * outputs, active).reshape((count, outputs))
    sums = numbers_at(out, samples * outputs, active).reshape((samples, outputs))
    for first in range(start, stop, width):
        add_chunks(first, min(first + width, stop), ends, neurons, worth, rows, sums, parts, part)
