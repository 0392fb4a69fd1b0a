"""Compiling with Numba when it is first needed, and running what is compiled on the threads torch may use.

Compiled functions run on the team of threads that torch's own operators run on; where there is none that can be
asked, and in a forked child, which has lost its team, ordinary Python threads take over.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from neuropil.errors import MissingExtraError
from neuropil.kernels.memory import keep_freed_memory
from neuropil.kernels.team import find_team

HAS_NUMBA = importlib.util.find_spec("numba") is not None

_WORTH_A_THREAD = 32_768  # elements: below, waking a thread takes longer than the work


class Kernel:
    """A function that Numba compiles at its first call, for itself and for the kernels that call it.

    Nothing is contracted into fused multiply-adds unless `contract`: rounding is then torch's, and with it
    every comparison with a threshold; no sum is taken in another order unless `reorder`. Division by zero gives
    infinity, as in numpy.
    """

    def __init__(
        self, function: Callable[..., Any], *, contract: bool, inline: bool, reorder: bool = False
    ) -> None:
        self._function, self._inline = function, inline
        allowed = {"contract": contract, "reassoc": reorder}
        self._fastmath = {name for name, yes in allowed.items() if yes} or False
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
            fastmath=self._fastmath,
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


def sum_part(function: Callable[..., Any]) -> Kernel:
    """Like `smooth_part`, whose sums may moreover be taken in any order: several numbers at once."""
    return Kernel(function, contract=True, inline=True, reorder=True)


def serves(*tensors: torch.Tensor) -> bool:
    """Whether compiled kernels take these tensors: on the CPU, all float32 or all float64.

    >>> serves(torch.zeros(2, dtype=torch.float16))
    False
    """
    dtype = tensors[0].dtype
    if not HAS_NUMBA or (dtype is not torch.float32 and dtype is not torch.float64):
        return False
    for tensor in tensors:  # noqa: SIM110  (a generator costs as much as the questions)
        if tensor.dtype is not dtype or not tensor.is_cpu:
            return False
    return True


def traced(*tensors: torch.Tensor) -> bool:
    """Whether a graph is drawn or a function transformed, so that an operator must be called as torch knows it.

    Otherwise what it computes may be called itself, which saves a tenth of a millisecond or so.

    >>> traced(torch.zeros(2))
    False
    """
    if torch.compiler.is_compiling():
        return True
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    for tensor in tensors:  # noqa: SIM110  (as above)
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or wrapped(tensor):
            return True
    return False


def differentiable_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Torch's `once_differentiable` for a compiled backward pass, asked only where a graph of it is wanted.

    >>> differentiable_once(lambda ctx, g: 2 * g)(None, 3)
    6
    """
    refusing: Callable[..., Any] = once_differentiable(backward)

    @functools.wraps(backward)
    def run(ctx: Any, *gradients: Any) -> Any:
        return (refusing if torch.is_grad_enabled() else backward)(ctx, *gradients)

    return run


def run_over(function: Kernel, lanes: int, work: int, *args: Any, grain: int = 64, stretch: int = 1) -> None:
    """Call `function(start, stop, *args)` on pieces that cover `range(lanes)`, on `torch.get_num_threads()`.

    `work` is the number of elements touched in all, `grain` the number of lanes that pieces are multiples of,
    `stretch` the number that they have at least where each thread still gets one: short rows of long arrays do not
    stream. Lanes are independent, so the result does not depend on the number of threads.
    """
    keep_freed_memory()
    threads = min(torch.get_num_threads(), max(1, work // _WORTH_A_THREAD))
    # A few pieces per thread, so that a thread that was interrupted does not keep the others waiting.
    least = min(stretch, -(-lanes // threads))
    piece = max(1, -(-max(least, -(-lanes // (4 * threads))) // grain)) * grain
    if threads == 1 or lanes <= piece:
        function(0, lanes, *args)
    elif (team := find_team(os.getpid())) is not None:
        team.run(function.dispatcher, threads, lanes, piece, args)
    else:
        _run_on_pool(function, threads, lanes, piece, args)


def _run_on_pool(function: Kernel, threads: int, lanes: int, piece: int, args: tuple[Any, ...]) -> None:
    """Take the pieces with ordinary Python threads, as compiled functions release the interpreter lock."""
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
