"""Vector registers for compiled kernels: several numbers that are loaded, multiplied and stored as one.

Numba leaves it to the compiler to find vectors in a loop; in loops that gather rows it does not see that the
sums could stay in registers. Here a kernel says so. A vector is `len(parts)` times 64 bytes wide: the type of the
tuple `parts` tells the compiler, which splits a vector into as many registers as the processor needs for it.
Offsets count numbers from the start of a contiguous array.
"""

from __future__ import annotations

import functools
from typing import Any

from neuropil.errors import MissingExtraError

REGISTER = 64  # bytes that one part of a vector takes


class Intrinsic:
    """A piece of code that Numba asks for by name when it meets it in a kernel; made at the first use."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def _numba_type_(self) -> Any:
        return _intrinsics()[self._name]

    def __call__(self, *args: Any) -> Any:
        """Only compiled code has vectors."""
        raise TypeError(f"vector.{self._name} can only be called in a compiled kernel")


zeros = Intrinsic("zeros")  # (array, parts): a vector of zeros of the array's dtype
load = Intrinsic("load")  # (array, offset, parts)
store = Intrinsic("store")  # (array, offset, vector)
scaled_add = Intrinsic("scaled_add")  # (scalar, vector, sums): scalar * vector + sums
product_add = Intrinsic("product_add")  # (left, right, sums): left * right + sums, number by number
total = Intrinsic("total")  # (vector): sum of its numbers
transpose = Intrinsic("transpose")  # (source, at, stride, target, at, stride): a square tile, one register wide
lowest_bit = Intrinsic("lowest_bit")  # (word): index of the lowest bit that is set in 64 bits


def width(itemsize: int, parts: int) -> int:
    """Numbers in a vector.

    >>> width(4, parts=4)
    64
    """
    return parts * REGISTER // itemsize


@functools.cache
def _intrinsics() -> dict[str, Any]:
    """Numba's types of the functions above."""
    try:
        from llvmlite import ir  # noqa: PLC0415
        from numba.core import cgutils, types  # noqa: PLC0415
        from numba.core.datamodel import models  # noqa: PLC0415
        from numba.core.typing.templates import make_intrinsic_template  # noqa: PLC0415
        from numba.extending import register_model  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("compiled kernels need numba: pip install numba") from None

    class Vector(types.Type):
        def __init__(self, dtype: Any, count: int) -> None:
            self.dtype, self.count = dtype, count
            super().__init__(name=f"Vector({dtype}, {count})")

    @register_model(Vector)
    class VectorModel(models.PrimitiveModel):
        def __init__(self, manager: Any, kind: Any) -> None:
            super().__init__(manager, kind, llvm_type(kind))

    def llvm_type(kind: Any) -> Any:
        return ir.VectorType(ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType(), kind.count)

    def vector_of(array: Any, parts: Any) -> Any:
        return Vector(array.dtype, width(array.dtype.bitwidth // 8, len(parts)))

    def address(context: Any, builder: Any, kind: Any, value: Any, offset: Any) -> Any:
        data = context.make_array(kind)(context, builder, value).data
        return builder.gep(data, [offset])

    def as_vector(builder: Any, pointer: Any, kind: Any) -> Any:
        return builder.bitcast(pointer, llvm_type(kind).as_pointer())

    def splat(builder: Any, scalar: Any, kind: Any) -> Any:
        vector, lane = llvm_type(kind), ir.IntType(32)
        single = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, lane(0))
        return builder.shuffle_vector(
            single, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(lane, kind.count), None)
        )

    def multiply_add(builder: Any, left: Any, right: Any, sums: Any) -> Any:
        fused = ("contract",)
        return builder.fadd(builder.fmul(left, right, flags=fused), sums, flags=fused)

    def zeros(typing: Any, array: Any, parts: Any) -> Any:
        kind = vector_of(array, parts)
        return kind(array, parts), lambda context, builder, signature, args: llvm_type(kind)(None)

    def load(typing: Any, array: Any, offset: Any, parts: Any) -> Any:
        kind = vector_of(array, parts)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = as_vector(builder, address(context, builder, array, args[0], args[1]), kind)
            return builder.load(pointer, align=array.dtype.bitwidth // 8)

        return kind(array, types.intp, parts), generate

    def store(typing: Any, array: Any, offset: Any, vector: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = as_vector(builder, address(context, builder, array, args[0], args[1]), vector)
            builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
            return context.get_dummy_value()

        return types.void(array, types.intp, vector), generate

    def scaled_add(typing: Any, scalar: Any, vector: Any, sums: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return multiply_add(builder, splat(builder, args[0], vector), args[1], args[2])

        return vector(vector.dtype, vector, vector), generate

    def product_add(typing: Any, left: Any, right: Any, sums: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return multiply_add(builder, *args)

        return left(left, left, left), generate

    def total(typing: Any, vector: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = llvm_type(vector)
            name = f"llvm.vector.reduce.fadd.v{vector.count}f{vector.dtype.bitwidth}"
            declared = ir.FunctionType(kind.element, [kind.element, kind])
            function = cgutils.get_or_insert_function(builder.module, declared, name)
            return builder.call(function, [kind.element(-0.0), args[0]], fastmath=("reassoc",))

        return vector.dtype(vector), generate

    def transpose(
        typing: Any, source: Any, at: Any, stride: Any, target: Any, at_target: Any, stride_target: Any
    ) -> Any:
        kind = Vector(source.dtype, width(source.dtype.bitwidth // 8, 1))

        def row(context: Any, builder: Any, array: Any, value: Any, at: Any, stride: Any, index: int) -> Any:
            offset = builder.add(at, builder.mul(stride, ir.IntType(64)(index)))
            return as_vector(builder, address(context, builder, array, value, offset), kind)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            align, count = source.dtype.bitwidth // 8, kind.count
            rows = [
                builder.load(row(context, builder, source, *args[:3], index), align=align)
                for index in range(count)
            ]
            for half in (count >> level for level in range(1, count.bit_length())):  # exchange halves of halves
                for upper in (index for index in range(count) if not index & half):
                    pair = rows[upper], rows[upper + half]
                    rows[upper], rows[upper + half] = (
                        builder.shuffle_vector(*pair, exchange(count, half, lower)) for lower in (False, True)
                    )
            for index, vector in enumerate(rows):
                builder.store(vector, row(context, builder, target, *args[3:], index), align=align)
            return context.get_dummy_value()

        return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate

    def exchange(count: int, half: int, lower: bool) -> Any:
        """Which lanes of two rows make the upper, or the lower, row after their off-diagonal parts were exchanged."""
        lanes = (
            (lane if lower else lane - half) + count if lane & half else (lane + half if lower else lane)
            for lane in range(count)
        )
        mask = ir.VectorType(ir.IntType(32), count)
        return ir.Constant(mask, [ir.IntType(32)(lane) for lane in lanes])

    def lowest_bit(typing: Any, word: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.cttz(args[0], ir.IntType(1)(1))

        return types.uint64(types.uint64), generate

    definitions = (zeros, load, store, scaled_add, product_add, total, transpose, lowest_bit)
    return {
        definition.__name__: types.Function(
            make_intrinsic_template(definition, definition, definition.__name__)
        )
        for definition in definitions
    }
