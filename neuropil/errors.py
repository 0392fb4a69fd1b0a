"""What can go wrong, each kind its own exception, each message one line.

A message says what was wrong, what was expected and, where there is one, the nearest valid choice.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST_LIST = 60


class NeuropilError(Exception):
    """Root of every error that neuropil raises on purpose."""


class ConfigError(NeuropilError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""


class ShapeError(NeuropilError, ValueError):
    """A tensor's shape does not fit the part it was given to."""


class StateError(ShapeError):
    """A carried state does not fit the batch it is used with."""


class DataError(NeuropilError, ValueError):
    """Data is missing values, out of range, empty or of the wrong size."""


class EmptyTaskError(DataError):
    """A task, split or stream holds no samples."""


class LabelError(DataError):
    """A label lies outside the classes the model can answer with."""


class MissingDataError(NeuropilError, FileNotFoundError):
    """A data set is not on this machine; the message names the ways to get it."""


class NonFiniteError(NeuropilError, FloatingPointError):
    """NaN or infinity in data, loss or gradient."""


class IncompatibleError(NeuropilError, ValueError):
    """Two parts whose invariants cannot both hold were put together."""


class SubspaceError(NeuropilError, ValueError):
    """Protected directions would fill more of a layer's inputs than may be protected."""


class CheckpointError(NeuropilError, ValueError):
    """A checkpoint is truncated, altered or of another schema."""


class UnknownNameError(NeuropilError, LookupError):
    """An id, arm, data set or field that does not exist."""


class MissingExtraError(NeuropilError, ImportError):
    """An optional dependency is needed and not installed."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Hint that ends an error line: the closest valid choice, or all of them when none is close.

    >>> nearest("finetun", ["hlop", "finetune"])
    "; did you mean 'finetune'?"
    """
    known = sorted(choices)
    folded = {choice.lower(): choice for choice in reversed(known)}
    close = difflib.get_close_matches(name.lower(), folded, n=1)
    if close:
        return f"; did you mean {folded[close[0]]!r}?"
    listed = ", ".join(known)
    if len(listed) > _LONGEST_LIST:
        listed = listed[:_LONGEST_LIST].rpartition(", ")[0] + ", ..."
    return f"; choose from {listed}" if known else ""
