from __future__ import annotations

import pytest

from neuropil.training import History, average_accuracy, backward_transfer, forward_transfer

MATRIX = [[0.9, 0.2, None], [0.8, 0.7, 0.4], [0.5, 0.6, 1.0]]
UNTRAINED = [0.1, 0.1, 0.25]


def test_metrics_by_hand() -> None:
    assert average_accuracy(MATRIX) == pytest.approx((0.5 + 0.6 + 1.0) / 3)
    assert backward_transfer(MATRIX) == pytest.approx(((0.5 - 0.9) + (0.6 - 0.7)) / 2)
    assert forward_transfer(MATRIX, UNTRAINED) == pytest.approx(((0.2 - 0.1) + (0.4 - 0.25)) / 2)


def test_one_task_has_no_transfer() -> None:
    assert backward_transfer([[0.9]]) is None
    assert forward_transfer([[0.9]], [0.1]) is None


def test_what_was_not_evaluated_does_not_count() -> None:
    assert backward_transfer([[None, None], [0.5, 0.7]]) is None
    assert average_accuracy([[0.5, None]]) == 0.5


def test_history_gives_the_same() -> None:
    history = History(accuracy_matrix=MATRIX, untrained=UNTRAINED)
    assert history.average_accuracy == average_accuracy(MATRIX)
    assert history.backward_transfer == backward_transfer(MATRIX)
    assert history.forward_transfer == forward_transfer(MATRIX, UNTRAINED)
    assert History(**history.state_dict()) == history
