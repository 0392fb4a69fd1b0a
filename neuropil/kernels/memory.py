"""Keeping memory that was freed, for the arrays of the next step."""

from __future__ import annotations

import ctypes
import functools
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt's parameters in <malloc.h>
_KEPT = 256 * 2**20  # bytes that may lie free before the C library gives them back
_LARGEST = 32 * 2**20  # bytes of the largest block that it keeps; it accepts no more
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
