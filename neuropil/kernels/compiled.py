"""Compiling with Numba when it is first needed, and running what is compiled on the threads torch may use.

Compiled functions release the interpreter lock and are run by ordinary Python threads. So there is no second pool
of native threads: nothing to lock when several callers launch at once, and a forked child starts its own.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from neuropil.errors import MissingExtraError

HAS_NUMBA = importlib.util.find_spec("numba") is not None

_WORTH_A_THREAD = 32_768  # elements: below, waking a thread takes longer than the work


class Kernel:
    """A function that Numba compiles at its first call, for itself and for the kernels that call it.

    Nothing is contracted into fused multiply-adds unless `contract`: rounding is then torch's, and with it
    every comparison with a threshold. Division by zero gives infinity, as in numpy.
    """

    def __init__(self, function: Callable[..., Any], *, contract: bool, inline: bool) -> None:
        self._function, self._contract, self._inline = function, contract, inline
        functools.update_wrapper(self, function)

    @functools.cached_property
    def dispatcher(self) -> Any:
        """The Numba dispatcher, cached on disk where a directory for it is writable."""
        try:
            import numba  # noqa: PLC0415
        except ImportError:
            raise MissingExtraError("compiled kernels need numba: pip install numba") from None
        decorate = functools.partial(
            numba.njit,
            nogil=True,
            error_model="numpy",
            fastmath={"contract"} if self._contract else False,
            forceinline=self._inline,
        )
        try:
            return decorate(cache=not self._inline)(self._function)
        except RuntimeError:  # no writable place for the cache: compile anew in every process
            return decorate()(self._function)

    @property
    def _numba_type_(self) -> Any:
        # How Numba asks a global of a function that it compiles for its type: as the dispatcher's.
        return self.dispatcher._numba_type_

    def __call__(self, *args: Any) -> Any:
        """Run the compiled function on numpy arrays and numbers."""
        return self.dispatcher(*args)


def kernel(function: Callable[..., Any]) -> Kernel:
    """Entry point of compiled code, to be called from Python."""
    return Kernel(function, contract=False, inline=False)


def kernel_part(function: Callable[..., Any]) -> Kernel:
    """Piece of a kernel, compiled into each of its callers."""
    return Kernel(function, contract=False, inline=True)


def smooth_part(function: Callable[..., Any]) -> Kernel:
    """Piece of a kernel whose result meets no threshold, so that multiply-adds may be fused."""
    return Kernel(function, contract=True, inline=True)


def serves(*tensors: torch.Tensor) -> bool:
    """Whether compiled kernels take these tensors: on the CPU, all float32 or all float64.

    >>> serves(torch.zeros(2, dtype=torch.float16))
    False
    """
    dtype = tensors[0].dtype
    return (
        HAS_NUMBA
        and dtype in (torch.float32, torch.float64)
        and all(tensor.device.type == "cpu" and tensor.dtype == dtype for tensor in tensors)
    )


def run_over(function: Kernel, lanes: int, work: int, *args: Any) -> None:
    """Call `function(start, stop, *args)` on pieces that cover `range(lanes)`, on `torch.get_num_threads()`.

    `work` is the number of elements touched in all. Lanes are independent, so the result does not depend on
    the number of threads.
    """
    threads = min(torch.get_num_threads(), max(1, work // _WORTH_A_THREAD))
    if threads == 1:
        function(0, lanes, *args)
        return
    # A few pieces per thread, so that a thread that was interrupted does not keep the others waiting.
    piece = -(-lanes // (4 * threads) // 64) * 64 or lanes
    starts = iter(range(0, lanes, piece))

    def work_off() -> None:
        for start in starts:
            function(start, min(start + piece, lanes), *args)

    others = [_pool(threads - 1, os.getpid()).submit(work_off) for _ in range(threads - 1)]
    work_off()
    for other in others:
        other.result()


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Helper threads, kept alive; `process` gives a forked child its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"neuropil-{process}")
