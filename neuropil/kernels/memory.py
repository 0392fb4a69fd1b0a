"""Keeping memory that was freed, for the arrays of the next step, and large pages for arrays too large for that."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt's parameters in <malloc.h>
_KEPT = 256 * 2**20  # bytes that may lie free before the C library gives them back
_LARGEST = 32 * 2**20  # bytes of the largest block that it keeps; it accepts no more
_LARGE_PAGE = 2 * 2**20  # bytes, aligned to as many, that a system with large pages gives at once
_HUGE_PAGES = 14  # madvise's name for them in <sys/mman.h>, where it has one
_CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@functools.cache
def keep_freed_memory() -> bool:
    """Ask the C library, once, to keep up to 256 MiB of freed memory; says whether it does.

    A training step frees arrays as large as those that the next one asks for. The GNU library gives them back to
    the system in between, and taking them anew, page by page, costs more than a scan over them. Nothing is done
    where the environment has a wish of its own, or under another C library.

    >>> keep_freed_memory() in (True, False)
    True
    """
    if any(name in os.environ for name in _CHOSEN):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))


def in_large_pages(block: Tensor) -> Tensor:
    """The same tensor, whose memory, if nothing was written there yet, will come in pages of 2 MiB.

    A tensor above 32 MiB is new memory every time, and taking it page by page costs more than writing it.
    Smaller ones stay as they are: what is kept needs no pages. Systems that know no such pages ignore the wish.

    >>> import torch
    >>> in_large_pages(torch.zeros(2))
    tensor([0., 0.])
    """
    size = block.numel() * block.element_size()
    advise = _advice() if size > _LARGEST and block.is_cpu else None
    if advise is not None:
        first = -(-block.data_ptr() // _LARGE_PAGE) * _LARGE_PAGE
        last = (block.data_ptr() + size) // _LARGE_PAGE * _LARGE_PAGE
        advise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _HUGE_PAGES)
    return block


@functools.cache
def _advice() -> Callable[..., Any] | None:
    """The C library's madvise, where it means by 14 what Linux means."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        advise: Callable[..., Any] = ctypes.CDLL(None).madvise
    except (AttributeError, OSError):
        return None
    return advise
