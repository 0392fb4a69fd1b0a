"""What a life of learning leaves behind: accuracies on every task after every task, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Matrix = Sequence[Sequence[float | None]]  # [after task][on task], None where not evaluated


def average_accuracy(matrix: Matrix) -> float:
    """ACC: mean accuracy over all tasks after the last one.

    >>> average_accuracy([[0.9, None], [0.7, 0.9]])
    0.8
    """
    last = [value for value in matrix[-1] if value is not None]
    return sum(last) / len(last)


def backward_transfer(matrix: Matrix) -> float | None:
    """BWT: mean over tasks but the last of (accuracy at the end - accuracy when just learned).

    Negative values are forgetting. Lopez-Paz and Ranzato 2017. None with fewer than two tasks.

    >>> round(backward_transfer([[0.9, None], [0.7, 0.9]]), 3)
    -0.2
    """
    pairs = [(matrix[-1][i], matrix[i][i]) for i in range(len(matrix) - 1)]
    changes = [end - start for end, start in pairs if end is not None and start is not None]
    return sum(changes) / len(changes) if changes else None


def forward_transfer(matrix: Matrix, untrained: Sequence[float | None]) -> float | None:
    """FWT: mean over tasks but the first of (accuracy just before learning it - accuracy of the untrained model).

    >>> round(forward_transfer([[0.9, 0.3], [0.7, 0.9]], [0.1, 0.1]), 3)
    0.2
    """
    pairs = [(matrix[i - 1][i], untrained[i]) for i in range(1, len(matrix))]
    changes = [before - chance for before, chance in pairs if before is not None and chance is not None]
    return sum(changes) / len(changes) if changes else None


@dataclass
class History:
    """Accuracies `[after task][on task]`, accuracies before any training, and the loss of every step."""

    accuracy_matrix: list[list[float | None]] = field(default_factory=list)
    untrained: list[float | None] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def average_accuracy(self) -> float:
        """ACC, see `average_accuracy`."""
        return average_accuracy(self.accuracy_matrix)

    @property
    def backward_transfer(self) -> float | None:
        """BWT, see `backward_transfer`."""
        return backward_transfer(self.accuracy_matrix)

    @property
    def forward_transfer(self) -> float | None:
        """FWT, see `forward_transfer`."""
        return forward_transfer(self.accuracy_matrix, self.untrained)

    def state_dict(self) -> dict[str, Any]:
        """Plain lists."""
        return {"accuracy_matrix": self.accuracy_matrix, "untrained": self.untrained, "losses": self.losses}
