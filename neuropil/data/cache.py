"""Where data and results that can be made again are kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_directory() -> Path:
    """Directory for data and results that can be made again; it need not exist yet.

    `NEUROPIL_CACHE` names it; without that it is the platform's cache directory of the user.

    >>> import os
    >>> os.environ["NEUROPIL_CACHE"] = "scratch"
    >>> str(cache_directory())
    'scratch'
    >>> del os.environ["NEUROPIL_CACHE"]
    """
    chosen = os.environ.get("NEUROPIL_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "neuropil"
