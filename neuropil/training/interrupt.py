"""Ctrl-C between steps instead of in the middle of one, and SIGTERM like it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def first_interrupt_waits(*, sigterm: bool = False) -> Iterator[Callable[[], int | None]]:
    """Hold the first Ctrl-C back; what is yielded gives the signal that came. A second one interrupts at once.

    With `sigterm` the first SIGTERM is held back too. Where the usual handler is not in place, or outside the main
    thread, signals come as they did.

    >>> with first_interrupt_waits() as arrived:
    ...     signal.raise_signal(signal.SIGINT)
    ...     arrived() == signal.SIGINT
    True
    """
    usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler}
    if sigterm:
        usual[signal.SIGTERM] = signal.SIG_DFL
    came: list[int] = []

    def hold(number: int, frame: Any) -> None:
        came.append(number)
        signal.signal(number, usual[number])

    in_main_thread = threading.current_thread() is threading.main_thread()
    mine = [number for number in usual if in_main_thread and signal.getsignal(number) is usual[number]]
    for number in mine:
        signal.signal(number, hold)
    try:
        yield lambda: came[0] if came else None
    finally:
        for number in mine:
            signal.signal(number, usual[number])
