"""Threads that share the steps of one run: the next step begins when every chunk of the last is finished.

A step of a recurrent network takes microseconds, too little to call a team of threads for each. Here every thread
goes through the whole run; in each step it takes the chunk that is its own, then those that nobody has begun, and
waits for the others. Whoever runs takes all that is left, so that a run ends however many threads there really are,
also if they come one after the other; only a thread that takes a chunk must not fail before it says `finished`.

`turns` are 64-bit integers `[chunks + 1, 8]`, a cache line each, all zero at the start: how many steps of a chunk
have been begun, and, in the last line, how many chunks have been finished in all.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel_part
from neuropil.kernels.vector import Intrinsic

Array = Any  # numpy arrays, as Numba sees them

CAN_WAIT = hasattr(os, "sched_yield")  # whether a thread can let another go ahead
LINE = 8  # numbers of a cache line
_PATIENCE = 4000  # looks at the count, some microseconds, before a thread lets others use its core


def new_turns(chunks: int) -> Any:
    """Counts for a run in which every step has so many chunks."""
    return np.zeros((chunks + 1, LINE), np.int64)


class _Words:
    """Code for numbers that several threads change, each a method as in `vector`."""

    def __init__(self) -> None:
        from llvmlite import ir  # noqa: PLC0415
        from numba.core import cgutils, types  # noqa: PLC0415

        self.ir, self.types = ir, types
        self.declare: Any = cgutils.get_or_insert_function

    def place(self, context: Any, builder: Any, array: Any, value: Any, row: Any) -> Any:
        """Where the first number of a row of `turns` lies."""
        data = context.make_array(array)(context, builder, value).data
        return builder.gep(data, [builder.mul(row, self.ir.IntType(64)(LINE))])

    def count(self, typing: Any, turns: Any, row: Any) -> Any:
        """The number, and with it all that was written before it was reached."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.load_atomic(self.place(context, builder, turns, *args), "acquire", 8)

        return self.types.int64(turns, self.types.intp), generate

    def increase(self, typing: Any, turns: Any, row: Any) -> Any:
        """Add one, after all that was written before."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = self.place(context, builder, turns, *args)
            builder.atomic_rmw("add", place, self.ir.IntType(64)(1), "release")
            return context.get_dummy_value()

        return self.types.void(turns, self.types.intp), generate

    def replace(self, typing: Any, turns: Any, row: Any, old: Any, new: Any) -> Any:
        """Set to `new` if the number is still `old`; whether it was."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = self.place(context, builder, turns, *args[:2])
            return builder.extract_value(builder.cmpxchg(place, *args[2:], "monotonic", "monotonic"), 1)

        word = self.types.int64
        return self.types.boolean(turns, self.types.intp, word, word), generate

    def give_way(self, typing: Any) -> Any:
        """Let another thread use this core, if one waits for it."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = self.ir.FunctionType(self.ir.IntType(32), [])
            builder.call(self.declare(builder.module, kind, "sched_yield"), [])
            return context.get_dummy_value()

        return self.types.void(), generate


_words = functools.cache(_Words)
count = Intrinsic("count", _words)
increase = Intrinsic("increase", _words)
replace = Intrinsic("replace", _words)
give_way = Intrinsic("give_way", _words)


@kernel_part
def wait(turns: Array, step: int) -> None:
    """Return when every chunk of the steps before `step` is finished, and what was written in them can be read."""
    chunks, looks = len(turns) - 1, 0
    while count(turns, chunks) < step * chunks:
        looks += 1
        if looks > _PATIENCE:
            give_way()


@kernel_part
def begin(turns: Array, chunk: int, step: int) -> bool:
    """Whether this thread is the one to do a chunk's share of a step."""
    first: bool = count(turns, chunk) == step and replace(turns, chunk, step, step + 1)
    return first


@kernel_part
def finished(turns: Array) -> None:
    """Say that a chunk is done."""
    increase(turns, len(turns) - 1)
