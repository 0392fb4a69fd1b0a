"""Streams by name, as a command line or a configuration gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from neuropil.data.corruptions import corrupted
from neuropil.data.shifting import concept_shift
from neuropil.data.sources import SOURCES
from neuropil.data.streams import permuted, rotated, split
from neuropil.data.task import Stream
from neuropil.data.task_free import drifting
from neuropil.errors import UnknownNameError, nearest

_MAKERS: dict[str, Callable[..., Stream]] = {
    "permuted": permuted,
    "split": split,
    "rotated": rotated,
    "corrupted": corrupted,
    "concept-shift": concept_shift,
}
_DRIFTING = "drifting-"


def by_name(name: str, tasks: int | None = None, *, seed: int = 0, **options: Any) -> Stream:
    """A stream by its name: its kind, `-`, and the name of a data set.

    Kinds are `permuted`, `split`, `rotated`, `corrupted` and `concept-shift`; `options` are those of the function of
    that name. `drifting-` in front makes it one stretch without boundaries, see `drifting`. Raises UnknownNameError
    with the nearest name.

    >>> by_name("split-mnist", tasks=3, seed=1).n_classes
    10
    >>> len(by_name("drifting-rotated-mnist", tasks=3, seed=1))
    1
    """
    inner = name.removeprefix(_DRIFTING)
    for kind, maker in _MAKERS.items():
        if inner.startswith(f"{kind}-") and inner.removeprefix(f"{kind}-") in SOURCES:
            given = {} if tasks is None else {"tasks": tasks}
            made = maker(inner.removeprefix(f"{kind}-"), **given, seed=seed, **options)
            return made if inner == name else drifting(made, seed=seed)
    names = [f"{maker}-{known}" for maker in _MAKERS for known in SOURCES]
    raise UnknownNameError(f"no stream is called {name!r}{nearest(inner, names)}")
