"""Handing compiled kernels to the threads that torch's own operators run on.

Torch on Linux keeps a team of OpenMP threads, which spin for a while after each operator. Threads of our own would
compete with them for the same cores, and would have to wait for the interpreter; the team is asked straight from
compiled code, within a few microseconds.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any

_FORK = "GOMP_parallel"  # OpenMP's "run this function on so many threads, and wait until all are done"
_PROCESS = os.getpid()


@functools.cache
def find_team(process: int) -> Team | None:
    """Torch's team, unless it has none of this kind or `process` is a forked child, where it is gone.

    >>> import os
    >>> find_team(os.getpid() + 1) is None
    True
    """
    if process != _PROCESS:
        return None
    try:
        entry = ctypes.cast(getattr(ctypes.CDLL(None), _FORK), ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError):
        return None
    return Team(entry)


class Team:
    """The threads behind `entry`, the address of GOMP_parallel."""

    def __init__(self, entry: int | None) -> None:
        from llvmlite import binding  # noqa: PLC0415
        from numba import _dispatcher, njit  # noqa: PLC0415
        from numba.core import types  # noqa: PLC0415
        from numba.core.typing.templates import make_intrinsic_template  # noqa: PLC0415

        binding.add_symbol(_FORK, entry)
        _share._numba_type_ = types.Function(make_intrinsic_template(_share, _define_share, "share"))
        self._fingerprint = _dispatcher.compute_fingerprint
        self._addresses: dict[tuple[Any, bytes], int] = {}
        try:
            self._launch = njit(nogil=True, cache=True)(_launch)
        except RuntimeError:  # no writable place for the cache: compile anew in every process
            self._launch = njit(nogil=True)(_launch)

    def run(self, dispatcher: Any, threads: int, lanes: int, piece: int, args: tuple[Any, ...]) -> None:
        """Call `dispatcher(start, stop, *args)` on pieces of `range(lanes)`, each on the first thread that is free."""
        kind = (dispatcher, self._fingerprint(args))
        if kind not in self._addresses:
            self._addresses[kind] = _address(dispatcher, args)
        if not self._launch(self._addresses[kind], threads, lanes, piece, args):
            raise RuntimeError(
                f"{dispatcher.__name__}: a compiled kernel failed, most likely for lack of memory"
            )


def _address(dispatcher: Any, args: tuple[Any, ...]) -> int:
    """Where the code for arguments of these types lies; compiled or read from the cache if it must be."""
    from numba import typeof  # noqa: PLC0415
    from numba.core import types  # noqa: PLC0415

    signature = (types.intp, types.intp, *map(typeof, args))
    if signature not in dispatcher.overloads:
        dispatcher.compile(signature)
    compiled = dispatcher.overloads[signature]
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))


def _launch(address: int, threads: int, lanes: int, piece: int, args: Any) -> Any:
    return _share(address, threads, lanes, piece, args)


class _Share:
    """What compiled code calls to share out work; Numba is told its type when there is a team."""

    _numba_type_: Any = None

    def __call__(self, *args: Any) -> Any:
        raise TypeError("only compiled code can share out work")


_share = _Share()


def _define_share(typing: Any, address: Any, threads: Any, lanes: Any, piece: Any, args: Any) -> Any:
    """Typing and code of `_share`: put the arguments where all threads find them, fork, say whether all went well."""
    from llvmlite import ir  # noqa: PLC0415
    from numba.core import types  # noqa: PLC0415

    word, count, pointer = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        code, size, last, step, packed = values
        shared = builder.alloca(ir.LiteralStructType([word] * 5 + [packed.type]))
        for index, value in enumerate((code, last, step, word(0), word(0), packed)):
            builder.store(value, builder.gep(shared, [count(0), count(index)]))
        worker = ir.Function(
            builder.module, ir.FunctionType(ir.VoidType(), [pointer]), f"{builder.function.name}.worker"
        )
        worker.linkage = "internal"
        _write_worker(context, worker, shared.type, args.types)
        kind = ir.FunctionType(ir.VoidType(), [worker.type, pointer, count, count])
        fork = ir.Function(builder.module, kind, _FORK)
        builder.call(fork, [worker, builder.bitcast(shared, pointer), builder.trunc(size, count), count(0)])
        failed = builder.load(builder.gep(shared, [count(0), count(4)]))
        return builder.icmp_signed("==", failed, word(0))

    return types.boolean(types.intp, types.intp, types.intp, types.intp, args), generate


def _write_worker(context: Any, worker: Any, shared: Any, kinds: tuple[Any, ...]) -> None:
    """Code of one thread: take pieces until none is left. `shared` holds address, lanes, piece, next, failed, args."""
    from llvmlite import ir  # noqa: PLC0415
    from numba.core import types  # noqa: PLC0415

    start_block, loop, body, done = (worker.append_basic_block() for _ in range(4))
    builder, count = ir.IRBuilder(start_block), ir.IntType(32)
    data = builder.bitcast(worker.args[0], shared)
    code, last, step, following, failed, packed = (
        builder.gep(data, [count(0), count(index)]) for index in range(6)
    )
    code, last, step, packed = (builder.load(member) for member in (code, last, step, packed))
    kinds = (types.intp, types.intp, *kinds)
    code = builder.inttoptr(code, context.call_conv.get_function_type(types.none, kinds).as_pointer())
    values = [builder.extract_value(packed, index) for index in range(len(kinds) - 2)]
    for index, kind in enumerate(kinds[2:]):
        # The caller keeps arrays alive: threads need not count references to them.
        if isinstance(kind, types.Array):
            owner = values[index].type.elements[0]
            values[index] = builder.insert_value(values[index], owner(None), 0)
    builder.branch(loop)
    builder.position_at_end(loop)
    start = builder.atomic_rmw("add", following, step, "monotonic")
    builder.cbranch(builder.icmp_signed("<", start, last), body, done)
    builder.position_at_end(body)
    stop = builder.add(start, step)
    stop = builder.select(builder.icmp_signed("<", stop, last), stop, last)
    status, _ = context.call_conv.call_function(builder, code, types.none, kinds, (start, stop, *values))
    builder.atomic_rmw("or", failed, builder.zext(status.is_error, ir.IntType(64)), "monotonic")
    builder.branch(loop)
    builder.position_at_end(done)
    builder.ret_void()
