"""Empty matplotlib figures for what analyses plot; matplotlib is imported only when something is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neuropil.errors import MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Canvas(NamedTuple):
    """A figure and its axes, in reading order."""

    figure: Any  # matplotlib.figure.Figure
    axes: NDArray[Any]  # [panels] of matplotlib.axes.Axes


def canvas(panels: int = 1, *, columns: int = 3, width: float = 4.0, height: float = 3.0) -> Canvas:
    """An empty figure of `panels` small plots, each `width` x `height` inches, at most `columns` side by side.

    The figure belongs to the caller alone: pyplot does not know it, so nothing has to be closed and no window opens.
    `figure.savefig(path)` writes it, and a notebook shows it.

    Raises MissingExtraError without matplotlib.

    >>> canvas(4).axes.shape
    (4,)
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("plots need matplotlib; pip install 'neuropil[plot]'") from None
    columns = max(1, min(panels, columns))
    rows = -(-panels // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = np.asarray(figure.subplots(rows, columns, squeeze=False)).reshape(-1)
    for unused in axes[panels:]:
        unused.remove()
    return Canvas(figure, axes[:panels])
