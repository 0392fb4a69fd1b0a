"""What a life of learning leaves behind: accuracies on every task after every task, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from neuropil.errors import ConfigError

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


def forgetting_measure(matrix: Matrix) -> float | None:
    """Mean over tasks but the last of (best accuracy before the last task was learned - accuracy at the end).

    Positive values are forgetting, negative ones that the last task helped. Unlike BWT it counts from the best moment,
    not from when a task was just learned. None with fewer than two tasks.

    Chaudhry et al.: Riemannian Walk for Incremental Learning. ECCV 2018. arXiv:1801.10112

    >>> round(forgetting_measure([[0.6, None, None], [0.8, 0.9, None], [0.5, 0.9, 0.9]]), 3)
    0.15
    """
    losses = []
    for task in range(len(matrix) - 1):
        met = [value for row in matrix[task:-1] if (value := row[task]) is not None]
        end = matrix[-1][task]
        if met and end is not None:
            losses.append(max(met) - end)
    return sum(losses) / len(losses) if losses else None


def intransigence(matrix: Matrix, reference: Sequence[float | None]) -> float | None:
    """Mean over tasks of (accuracy of a reference model - accuracy when just learned): what could not be learned.

    `reference[k]` is the accuracy on task `k` of a model trained on tasks `0 ... k` together. None where nothing can be
    compared.

    Chaudhry et al.: Riemannian Walk for Incremental Learning. ECCV 2018. arXiv:1801.10112

    >>> round(intransigence([[0.9, None], [0.7, 0.6]], [0.9, 0.8]), 3)
    0.1
    """
    if len(reference) != len(matrix):
        raise ConfigError(
            f"intransigence: {len(reference)} reference accuracies for {len(matrix)} tasks, expected as many"
        )
    pairs = [(reference[i], matrix[i][i]) for i in range(len(matrix))]
    gaps = [best - learned for best, learned in pairs if best is not None and learned is not None]
    return sum(gaps) / len(gaps) if gaps else None


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

    @property
    def forgetting_measure(self) -> float | None:
        """Forgetting from the best moment, see `forgetting_measure`."""
        return forgetting_measure(self.accuracy_matrix)

    def intransigence(self, reference: Sequence[float | None]) -> float | None:
        """What could not be learned, see `intransigence`."""
        return intransigence(self.accuracy_matrix, reference)

    def state_dict(self) -> dict[str, Any]:
        """Plain lists."""
        return {"accuracy_matrix": self.accuracy_matrix, "untrained": self.untrained, "losses": self.losses}
