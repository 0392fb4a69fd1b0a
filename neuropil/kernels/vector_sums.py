"""Sums over the numbers of vectors, several at a time: most of each is then done for all of them at once."""

from __future__ import annotations

import functools
from typing import Any

from neuropil.kernels.vector import REGISTER, Intrinsic


class _Sums:
    """Code for the sums, each a method as in `vector`."""

    def __init__(self) -> None:
        from llvmlite import ir  # noqa: PLC0415

        self.ir = ir

    def pick(self, builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
        """The numbers at some places of two vectors, one behind the other."""
        mask = self.ir.VectorType(self.ir.IntType(32), len(lanes))
        return builder.shuffle_vector(left, right, self.ir.Constant(mask, lanes))

    def fold(self, typing: Any, left: Any, right: Any) -> Any:
        lanes = REGISTER // left.itemsize
        kind, fused = type(left)(left.dtype, lanes), ("contract",)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            found = None
            for first in range(0, left.count, lanes):
                here = list(range(first, first + lanes))
                pair = [self.pick(builder, vector, vector, here) for vector in args]
                product = builder.fmul(*pair, flags=fused)
                found = product if found is None else builder.fadd(product, found, flags=fused)
            return found

        return kind(left, right), generate

    def totals(self, typing: Any, vectors: Any) -> Any:
        vector = vectors.dtype
        kind = type(vector)(vector.dtype, vectors.count)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            # Each vector is a row of partial sums. A step adds the halves of every row and puts two rows into one.
            found = [builder.extract_value(args[0], index) for index in range(vectors.count)]
            length = vector.count
            while length > 1:
                single = len(found) == 1
                pairs = [(found[0], found[0])] if single else list(zip(found[::2], found[1::2], strict=True))
                places = range(found[0].type.count * (1 if single else 2))
                lower, upper = (
                    [at for at in places if (at % length < length // 2) == wanted] for wanted in (True, False)
                )
                found = [
                    builder.fadd(self.pick(builder, *pair, lower), self.pick(builder, *pair, upper))
                    for pair in pairs
                ]
                length //= 2
            return found[0]

        return kind(vectors), generate


_sums = functools.cache(_Sums)
fold = Intrinsic(
    "fold", _sums
)  # (left, right): their products in one register, so many numbers apart added up
totals = Intrinsic("totals", _sums)  # (vectors): the sum of each one's numbers, side by side
