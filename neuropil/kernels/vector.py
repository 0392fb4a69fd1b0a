"""Vector registers for compiled kernels: several numbers that are loaded, multiplied and stored as one.

Numba leaves it to the compiler to find vectors in a loop; in loops that gather rows it does not see that the
sums could stay in registers. Here a kernel says so. A vector is `len(parts)` times 64 bytes wide: the type of the
tuple `parts` tells the compiler, which splits a vector into as many registers as the processor needs for it.
Offsets count numbers from the start of a contiguous array.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from neuropil.errors import MissingExtraError

REGISTER = 64  # bytes that one part of a vector takes


class Intrinsic:
    """A piece of code that Numba asks for by name when it meets it in a kernel; made at the first use.

    `generator` gives the object whose method of that name writes it: that of vectors unless another is named.
    """

    def __init__(self, name: str, generator: Callable[[], Any] | None = None) -> None:
        self._name, self._generator = name, generator

    @functools.cached_property
    def _numba_type_(self) -> Any:
        definition = getattr((self._generator or _generator)(), self._name)
        from numba.core import types  # noqa: PLC0415
        from numba.core.typing.templates import make_intrinsic_template  # noqa: PLC0415

        return types.Function(make_intrinsic_template(definition, definition, self._name))

    def __call__(self, *args: Any) -> Any:
        """Nothing outside compiled code can do this."""
        raise TypeError(f"{self._name} can only be called in a compiled kernel")


length = Intrinsic("length")  # (array, parts): numbers in a vector, known to the compiler
zeros = Intrinsic("zeros")  # (array, parts): a vector of zeros of the array's dtype
load = Intrinsic("load")  # (array, offset, parts)
store = Intrinsic("store")  # (array, offset, vector)
scaled_add = Intrinsic("scaled_add")  # (scalar, vector, sums): scalar * vector + sums
product_add = Intrinsic("product_add")  # (left, right, sums): left * right + sums, number by number
# Rows of vectors, a tuple as long as `rows`; a row is `stride` numbers from the next.
load_rows = Intrinsic("load_rows")  # (array, offset, stride, rows, parts)
store_rows = Intrinsic("store_rows")  # (array, offset, stride, vectors)
scaled_add_rows = Intrinsic("scaled_add_rows")  # (array, offset, stride, vector, sums): number * vector + sum
total = Intrinsic("total")  # (vector): sum of its numbers
transpose = Intrinsic("transpose")  # (source, at, stride, target, at, stride): a tile one register wide
prefetch = Intrinsic(
    "prefetch"
)  # (array, offset): bring the register's worth of numbers there into the caches
nonzero = Intrinsic(
    "nonzero"
)  # (array, offset, parts): a bit in 64 for each number that is not zero, at most 64
lowest_bit = Intrinsic("lowest_bit")  # (word): index of the lowest bit that is set in 64 bits
numbers_at = Intrinsic(
    "numbers_at"
)  # (address, count, like): the numbers there, of the dtype of the array `like`


def width(itemsize: int, parts: int) -> int:
    """Numbers in a vector.

    >>> width(4, parts=4)
    64
    """
    return parts * REGISTER // itemsize


class _Generator:
    """Typing and code of the functions above, each a method of its name, in Numba's terms.

    A method is given the types of the arguments and answers with a signature and a function that writes the code.
    """

    ir: Any
    types: Any
    vector: Any

    def __init__(self) -> None:
        try:
            from llvmlite import ir  # noqa: PLC0415
            from numba.core import cgutils, types  # noqa: PLC0415
            from numba.core.datamodel import models  # noqa: PLC0415
            from numba.extending import register_model  # noqa: PLC0415
        except ImportError:
            raise MissingExtraError("compiled kernels need numba: pip install numba") from None
        self.ir, self.types = ir, types
        self.declare: Any = cgutils.get_or_insert_function

        class Vector(types.Type):
            def __init__(self, dtype: Any, count: int) -> None:
                self.dtype, self.count, self.itemsize = dtype, count, dtype.bitwidth // 8
                scalar = ir.FloatType() if dtype == types.float32 else ir.DoubleType()
                self.code = ir.VectorType(scalar, count)
                super().__init__(name=f"Vector({dtype}, {count})")

        @register_model(Vector)
        class VectorModel(models.PrimitiveModel):
            def __init__(self, manager: Any, kind: Any) -> None:
                super().__init__(manager, kind, kind.code)  # type: ignore[no-untyped-call]

        self.vector = Vector

    def like(self, array: Any, parts: int) -> Any:
        """The vector of an array's numbers."""
        return self.vector(array.dtype, width(array.dtype.bitwidth // 8, parts))

    def pointer(self, context: Any, builder: Any, array: Any, value: Any, offset: Any, kind: Any) -> Any:
        """Where the vector at an offset lies."""
        data = context.make_array(array)(context, builder, value).data
        return builder.bitcast(builder.gep(data, [offset]), kind.code.as_pointer())

    def multiply_add(self, builder: Any, left: Any, right: Any, sums: Any) -> Any:
        """Product and sum, rounded once where the processor can."""
        fused = ("contract",)
        return builder.fadd(builder.fmul(left, right, flags=fused), sums, flags=fused)

    def length(self, typing: Any, array: Any, parts: Any) -> Any:
        count, intp = self.like(array, len(parts)).count, self.types.intp
        return intp(array, parts), lambda context, *_: context.get_constant(intp, count)

    def zeros(self, typing: Any, array: Any, parts: Any) -> Any:
        kind = self.like(array, len(parts))
        return kind(array, parts), lambda context, builder, signature, args: kind.code(None)

    def load(self, typing: Any, array: Any, offset: Any, parts: Any) -> Any:
        kind = self.like(array, len(parts))

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = self.pointer(context, builder, array, args[0], args[1], kind)
            return builder.load(pointer, align=kind.itemsize)

        return kind(array, self.types.intp, parts), generate

    def store(self, typing: Any, array: Any, offset: Any, vector: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = self.pointer(context, builder, array, args[0], args[1], vector)
            builder.store(args[2], pointer, align=vector.itemsize)
            return context.get_dummy_value()

        return self.types.void(array, self.types.intp, vector), generate

    def scaled_add(self, typing: Any, scalar: Any, vector: Any, sums: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return self.multiply_add(builder, self.spread(builder, vector, args[0]), *args[1:])

        return vector(vector.dtype, vector, vector), generate

    def load_rows(self, typing: Any, array: Any, offset: Any, stride: Any, rows: Any, parts: Any) -> Any:
        kind, intp, count = self.like(array, len(parts)), self.types.intp, len(rows)
        several = self.types.UniTuple(kind, count)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            found = context.get_constant_undef(several)
            for index in range(count):
                pointer = self.pointer(
                    context, builder, array, args[0], self.place(builder, args, index), kind
                )
                vector = builder.load(pointer, align=kind.itemsize)
                found = builder.insert_value(found, vector, index)
            return found

        return several(array, intp, intp, rows, parts), generate

    def store_rows(self, typing: Any, array: Any, offset: Any, stride: Any, vectors: Any) -> Any:
        kind, intp = vectors.dtype, self.types.intp

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            for index in range(vectors.count):
                pointer = self.pointer(
                    context, builder, array, args[0], self.place(builder, args, index), kind
                )
                builder.store(builder.extract_value(args[3], index), pointer, align=kind.itemsize)
            return context.get_dummy_value()

        return self.types.void(array, intp, intp, vectors), generate

    def scaled_add_rows(
        self, typing: Any, array: Any, offset: Any, stride: Any, vector: Any, sums: Any
    ) -> Any:
        intp = self.types.intp

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = context.make_array(array)(context, builder, args[0]).data
            found = args[4]
            for index in range(sums.count):
                scalar = builder.load(builder.gep(data, [self.place(builder, args, index)]))
                row = builder.extract_value(args[4], index)
                row = self.multiply_add(builder, self.spread(builder, vector, scalar), args[3], row)
                found = builder.insert_value(found, row, index)
            return found

        return sums(array, intp, intp, vector, sums), generate

    def place(self, builder: Any, args: Any, index: int) -> Any:
        """Offset of a row, where `args` has the first one's second and the stride third."""
        return builder.add(args[1], builder.mul(args[2], self.ir.IntType(64)(index)))

    def spread(self, builder: Any, vector: Any, scalar: Any) -> Any:
        """A vector that holds a number everywhere."""
        unknown = self.ir.Constant(vector.code, self.ir.Undefined)
        first = self.ir.Constant(self.ir.VectorType(self.ir.IntType(32), vector.count), None)
        single = builder.insert_element(unknown, scalar, self.ir.IntType(32)(0))
        return builder.shuffle_vector(single, unknown, first)

    def product_add(self, typing: Any, left: Any, right: Any, sums: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return self.multiply_add(builder, *args)

        return left(left, left, left), generate

    def total(self, typing: Any, vector: Any) -> Any:
        scalar = vector.code.element
        name = f"llvm.vector.reduce.fadd.v{vector.count}f{vector.dtype.bitwidth}"

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            declared = self.ir.FunctionType(scalar, [scalar, vector.code])
            function = self.declare(builder.module, declared, name)
            return builder.call(function, [scalar(-0.0), args[0]], fastmath=("reassoc",))

        return vector.dtype(vector), generate

    def transpose(
        self, typing: Any, source: Any, at: Any, stride: Any, target: Any, at_target: Any, stride_target: Any
    ) -> Any:
        kind, intp = self.like(source, 1), self.types.intp

        def row(context: Any, builder: Any, array: Any, place: Any, index: int) -> Any:
            value, first, step = place
            offset = builder.add(first, builder.mul(step, self.ir.IntType(64)(index)))
            return self.pointer(context, builder, array, value, offset, kind)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointers = [row(context, builder, source, args[:3], index) for index in range(kind.count)]
            rows = [builder.load(pointer, align=kind.itemsize) for pointer in pointers]
            for index, vector in enumerate(self.transposed(builder, rows)):
                builder.store(vector, row(context, builder, target, args[3:], index), align=kind.itemsize)
            return context.get_dummy_value()

        return self.types.void(source, intp, intp, target, intp, intp), generate

    def transposed(self, builder: Any, rows: list[Any]) -> list[Any]:
        """As many vectors as each has lanes, transposed: blocks off the diagonal change places, of halving size."""
        count = len(rows)
        mask = self.ir.VectorType(self.ir.IntType(32), count)
        half = count // 2
        while half:
            upper = [lane - half + count if lane & half else lane for lane in range(count)]
            lower = [lane + count if lane & half else lane + half for lane in range(count)]
            for index in (index for index in range(count) if not index & half):
                pair = rows[index], rows[index + half]
                rows[index], rows[index + half] = (
                    builder.shuffle_vector(*pair, self.ir.Constant(mask, lanes)) for lanes in (upper, lower)
                )
            half //= 2
        return rows

    def prefetch(self, typing: Any, array: Any, offset: Any) -> Any:
        count, place = self.ir.IntType(32), self.ir.IntType(8).as_pointer()

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = context.make_array(array)(context, builder, args[0]).data
            kind = self.ir.FunctionType(self.ir.VoidType(), [place, count, count, count])
            function = self.declare(builder.module, kind, "llvm.prefetch.p0")
            pointer = builder.bitcast(builder.gep(data, [args[1]]), place)
            builder.call(
                function, [pointer, count(0), count(3), count(1)]
            )  # to read, to the nearest cache, data
            return context.get_dummy_value()

        return self.types.void(array, self.types.intp), generate

    def nonzero(self, typing: Any, array: Any, offset: Any, parts: Any) -> Any:
        kind = self.like(array, len(parts))

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = self.pointer(context, builder, array, args[0], args[1], kind)
            numbers = builder.load(pointer, align=kind.itemsize)
            differs = builder.fcmp_unordered("!=", numbers, kind.code(None))
            bits = builder.bitcast(differs, self.ir.IntType(kind.count))
            return bits if kind.count == 64 else builder.zext(bits, self.ir.IntType(64))

        return self.types.uint64(array, self.types.intp, parts), generate

    def lowest_bit(self, typing: Any, word: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.cttz(args[0], self.ir.IntType(1)(1))

        return self.types.uint64(self.types.uint64), generate

    def numbers_at(self, typing: Any, address: Any, count: Any, like: Any) -> Any:
        from numba.np.arrayobj import populate_array  # noqa: PLC0415

        kind, word = self.types.Array(like.dtype, 1, "C"), self.types.intp

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            found = context.make_array(kind)(context, builder)
            size = context.get_constant(word, kind.dtype.bitwidth // 8)
            data = builder.inttoptr(args[0], found.data.type)
            populate_array(found, data, [args[1]], [size], size, None)
            return found._getvalue()

        return kind(word, word, like), generate


@functools.cache
def _generator() -> _Generator:
    return _Generator()
