"""Ctrl-C between steps instead of in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def first_interrupt_waits() -> Iterator[Callable[[], bool]]:
    """Hold the first Ctrl-C back; what is yielded tells whether there was one. A second one interrupts at once.

    Where Python's own handler is not in place, or outside the main thread, interrupts come as they did.

    >>> with first_interrupt_waits() as interrupted:
    ...     signal.raise_signal(signal.SIGINT)
    ...     interrupted()
    True
    """
    held = False

    def hold(number: int, frame: Any) -> None:
        nonlocal held
        held = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    in_main_thread = threading.current_thread() is threading.main_thread()
    mine = in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if mine:
        signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: held
    finally:
        if mine:
            signal.signal(signal.SIGINT, signal.default_int_handler)
