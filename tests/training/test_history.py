from __future__ import annotations

import pytest

from neuropil.errors import ConfigError
from neuropil.training import (
    History,
    average_accuracy,
    backward_transfer,
    forgetting_measure,
    forward_transfer,
    intransigence,
)

MATRIX = [[0.9, 0.2, None], [0.8, 0.7, 0.4], [0.5, 0.6, 1.0]]
UNTRAINED = [0.1, 0.1, 0.25]


def test_metrics_by_hand() -> None:
    assert average_accuracy(MATRIX) == pytest.approx((0.5 + 0.6 + 1.0) / 3)
    assert backward_transfer(MATRIX) == pytest.approx(((0.5 - 0.9) + (0.6 - 0.7)) / 2)
    assert forward_transfer(MATRIX, UNTRAINED) == pytest.approx(((0.2 - 0.1) + (0.4 - 0.25)) / 2)
    assert forgetting_measure(MATRIX) == pytest.approx(((0.9 - 0.5) + (0.7 - 0.6)) / 2)
    assert intransigence(MATRIX, [0.95, 0.9, 0.9]) == pytest.approx((0.05 + 0.2 - 0.1) / 3)


def test_forgetting_counts_from_the_best_moment() -> None:
    late = [[0.5, None, None], [0.8, 0.7, None], [0.6, 0.75, 0.9]]
    assert forgetting_measure(late) == pytest.approx((0.2 - 0.05) / 2)
    assert backward_transfer(late) == pytest.approx((0.1 + 0.05) / 2)


def test_intransigence_wants_a_reference_for_each_task() -> None:
    assert intransigence(MATRIX, [None, 0.9, None]) == pytest.approx(0.2)
    assert intransigence(MATRIX, [None, None, None]) is None
    with pytest.raises(ConfigError, match="2 reference accuracies for 3 tasks"):
        intransigence(MATRIX, [0.9, 0.9])


def test_one_task_has_no_transfer() -> None:
    assert backward_transfer([[0.9]]) is None
    assert forward_transfer([[0.9]], [0.1]) is None
    assert forgetting_measure([[0.9]]) is None


def test_what_was_not_evaluated_does_not_count() -> None:
    assert backward_transfer([[None, None], [0.5, 0.7]]) is None
    assert average_accuracy([[0.5, None]]) == 0.5


def test_history_gives_the_same() -> None:
    history = History(accuracy_matrix=MATRIX, untrained=UNTRAINED)
    assert history.average_accuracy == average_accuracy(MATRIX)
    assert history.backward_transfer == backward_transfer(MATRIX)
    assert history.forward_transfer == forward_transfer(MATRIX, UNTRAINED)
    assert history.forgetting_measure == forgetting_measure(MATRIX)
    assert history.intransigence([0.9, 0.9, 1.0]) == intransigence(MATRIX, [0.9, 0.9, 1.0])
    assert History(**history.state_dict()) == history
