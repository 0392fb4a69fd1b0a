"""Where trials are computed: on this machine, or on a Ray cluster."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from neuropil.bench.cluster import connected
from neuropil.bench.executor import Executor
from neuropil.bench.workers import Workers, worker_count
from neuropil.errors import ConfigError, nearest

LOCAL = "local"

_ADDRESS = re.compile(r"(ray://)?[^\s/:]+:\d+")


def check_place(on: str) -> str:
    """`local`, `ray`, or the address of a cluster; ConfigError for anything else.

    >>> check_place("ray://head.example:10001")
    'ray://head.example:10001'
    """
    if on not in (LOCAL, "ray") and not _ADDRESS.fullmatch(on):
        raise ConfigError(
            f"on: expected local, ray or ray://host:port, got {on!r}{nearest(on, (LOCAL, 'ray'))}"
        )
    return on


@contextlib.contextmanager
def place(on: str = LOCAL, jobs: int | None = None) -> Iterator[Executor]:
    """An executor, connected for as long as the context lasts; `jobs` limits trials side by side.

    `local` is this machine, `ray` the Ray cluster that runs on it or a new one, `ray://host:port` or `host:port`
    a cluster elsewhere. Raises ConfigError for a cluster that does not answer, MissingExtraError without ray.
    """
    if check_place(on) == LOCAL:
        yield Workers(worker_count(jobs))
        return
    with connected(None if on == "ray" else on, jobs) as cluster:
        yield cluster
