from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.datasets import load_digits, make_blobs
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from neuropil.continual import ActiveSelfPacedLearner, SelfPacedWeights
from neuropil.continual.aspl import pseudo_labels
from neuropil.errors import ConfigError, DataError

Array = np.ndarray


def learner(**settings: Any) -> ActiveSelfPacedLearner:
    return ActiveSelfPacedLearner(random_state=0, **settings)


PARTS = [
    ("estimator", learner),
    ("estimator", partial(learner, threshold=None, strategy="random")),
    ("estimator", partial(learner, estimator=LogisticRegression(), features=LinearDiscriminantAnalysis())),
]


def blobs(seed: int = 0, classes: int = 4, count: int = 200) -> tuple[Array, Array]:
    centres = 3 * np.stack(
        [np.cos(np.arange(classes) * 2 * np.pi / classes), np.sin(np.arange(classes) * 2 * np.pi / classes)],
        1,
    )
    return make_blobs(count, centers=centres, cluster_std=0.5, random_state=seed)


def few_of_each(y: Array, count: int = 2) -> Array:
    return np.concatenate([np.flatnonzero(y == label)[:count] for label in np.unique(y)])


@given(st.lists(st.floats(0, 5), min_size=1, max_size=6), st.floats(0.05, 3))
def test_weights_are_the_minimum_of_the_self_paced_objective(losses: list[float], threshold: float) -> None:
    pace = SelfPacedWeights(threshold)
    weights = pace(losses)
    found = minimize(
        lambda v: pace.objective(v, losses) / threshold,
        np.full(len(losses), 0.5),
        bounds=[(0, 1)] * len(losses),
        tol=1e-12,
    )
    np.testing.assert_allclose(weights, found.x, atol=1e-4)


def test_weights_fall_with_the_loss_and_rise_with_the_threshold() -> None:
    losses = np.linspace(0, 2, 50)
    low, high = SelfPacedWeights(0.5)(losses), SelfPacedWeights(1.0)(losses)
    assert (np.diff(low) <= 0).all() and low[0] == 1 and (low[losses >= 0.5] == 0).all()
    assert (high >= low).all()
    per_class = SelfPacedWeights(np.array([0.5, 1.0]))(np.stack([losses, losses], 1))
    assert np.array_equal(per_class, np.stack([low, high], 1))


def test_only_samples_that_one_class_claims_are_labelled() -> None:
    decisions = np.array([[2.0, -2, -2], [0.2, -1, -1], [1.5, 1.5, -1], [-1.0, -1, -1], [-2.0, -2, 1.1]])
    found = pseudo_labels(decisions, np.full(3, 0.5))
    assert found.labels.tolist() == [0, -1, -1, -1, 2]  # the second is too hard for its own class
    assert not found.weights[1:4].any() and (found.weights[[0, 4]] == 1).all()


def by_hand(X: Array, y: Array, pool: Array, threshold: float, rounds: int) -> Array:
    """Decisions after the published alternation, written out for one class at a time."""
    classes, n = np.unique(y), len(y)
    labels, weights = np.full(len(pool), -1), np.zeros((len(pool), len(classes)))
    for _ in range(rounds + 1):
        decide = []
        for j, c in enumerate(classes):
            inputs, signs, counts = list(X), list(y == c), [1.0] * n
            for i in range(len(pool)):
                if weights[i, j] > 0:
                    inputs.append(pool[i])
                    signs.append(labels[i] == j)
                    counts.append(weights[i, j])
            model = LogisticRegression().fit(
                np.array(inputs), np.array(signs), sample_weight=np.array(counts)
            )
            decide.append(model)
        d = np.stack([m.decision_function(pool) for m in decide], 1)
        for i in range(len(pool)):
            positive = [j for j in range(len(classes)) if d[i, j] > 0]
            labels[i] = positive[0] if len(positive) == 1 else -1
            for j in range(len(classes)):
                sign = 1 if positive == [j] else -1
                loss = max(0.0, 1 - sign * d[i, j])
                weights[i, j] = max(0.0, 1 - loss / threshold) if len(positive) == 1 else 0.0
            if len(positive) == 1 and weights[i, positive[0]] == 0:
                weights[i] = 0
    return np.stack([m.decision_function(pool) for m in decide], 1)


def test_rounds_are_the_published_alternation() -> None:
    X, y = blobs()
    few = few_of_each(y, 3)
    pool = np.delete(X, few, axis=0)
    found = learner(estimator=LogisticRegression(), threshold=0.8).fit(X[few], y[few], pool)
    assert (found.pseudo_.labels >= 0).mean() > 0.3
    np.testing.assert_allclose(
        found.decision_function(pool), by_hand(X[few], y[few], pool, 0.8, 3), rtol=1e-6, atol=1e-9
    )


def test_without_a_threshold_it_is_one_against_all() -> None:
    X, y = blobs()
    few = few_of_each(y)
    found = learner(threshold=None, estimator=LinearSVC(random_state=0)).fit(X[few], y[few], X)
    expected = [LinearSVC(random_state=0).fit(X[few], y[few] == c).decision_function(X) for c in range(4)]
    np.testing.assert_allclose(found.decision_function(X), np.stack(expected, 1), rtol=0.02, atol=0.02)
    assert (found.pseudo_.labels == -1).all()


def test_unlabelled_samples_help_where_labels_are_few() -> None:
    X, y = load_digits(return_X_y=True)
    X, few, rest = X / 16, few_of_each(y, 3), slice(100, None)
    alone = learner(threshold=None).fit(X[few], y[few], X[rest]).score(X[rest], y[rest])
    paced = learner(threshold=0.8).fit(X[few], y[few], X[rest])
    said = paced.pseudo_.labels
    assert paced.score(X[rest], y[rest]) > alone + 0.03
    assert (paced.classes_[said[said >= 0]] == y[rest][said >= 0]).mean() > 0.9


def test_the_question_is_where_two_classes_are_nearest() -> None:
    X, y = blobs(classes=3)
    few = few_of_each(y)
    found = learner().fit(X[few], y[few], X)
    best = np.sort(found.decision_function(X), axis=1)
    gap = best[:, -1] - best[:, -2]
    assert found.query(X, 7).tolist() == np.argsort(gap, kind="stable")[:7].tolist()
    assert found.query(X, 7).tolist() == found.query(X, 7).tolist()


def test_random_questions_are_drawn_anew_in_each_round() -> None:
    X, y = blobs()
    found = learner(strategy="random").fit(X[:20], y[:20], X)
    first = found.query(X, 30)
    assert len(set(first.tolist())) == 30 and set(first.tolist()) != set(range(30))
    found.teach(X[20:30], y[20:30], X)
    assert first.tolist() != found.query(X, 30).tolist()


def test_a_share_of_the_question_certifies_what_it_is_sure_of() -> None:
    X, y = blobs()
    few = few_of_each(y)
    found = learner(verify=0.4).fit(X[few], y[few], X)
    asked = found.query(X, 10)
    sure = pseudo_labels(found.decision_function(X), found.thresholds_).labels >= 0
    assert len(set(asked.tolist())) == 10 and sure[asked[-4:]].all()


def test_a_class_never_seen_is_discovered_by_asking() -> None:
    X, y = blobs(classes=4)
    few = few_of_each(y[y < 3])
    known = np.flatnonzero(y < 3)[few]
    found = learner().fit(X[known], y[known], X)
    assert found.classes_.tolist() == [0, 1, 2]
    asked = found.query(X, 20)
    found.teach(X[asked], y[asked], X)
    assert found.classes_.tolist() == [0, 1, 2, 3] and found.score(X, y) > 0.9


def test_a_persons_word_overrules_the_machine() -> None:
    X, y = blobs(classes=2)
    few = few_of_each(y, 4)
    wrong = 1 - y
    found = learner().fit(X[few], y[few], X)
    assert found.score(X, y) > 0.95
    found.teach(X, wrong, X[:0])
    assert found.score(X, wrong) > 0.95


def test_thresholds_grow_with_what_was_foreseen() -> None:
    X, y = blobs(classes=2)
    few = few_of_each(y, 4)
    found = learner(threshold=0.4, growth=1.5).fit(X[few], y[few], X)
    assert found.thresholds_.tolist() == [0.4, 0.4]
    asked = np.flatnonzero(y == 0)[10:13]
    assert (found.predict(X[asked]) == 0).all()
    misjudged = np.flatnonzero(y == 0)[20:23]  # a person calls these 1
    found.teach(np.concatenate([X[asked], X[misjudged]]), np.array([0, 0, 0, 1, 1, 1]), X)
    np.testing.assert_allclose(found.thresholds_, [0.4 * 1.5, 0.4 * (1 + 0.5 / 4)])
    assert found.n_labels_ == 14 and found.n_rounds_ == 1


def test_features_are_refined_with_the_samples_it_labelled() -> None:
    X, y = load_digits(return_X_y=True)
    few = few_of_each(y, 4)
    found = learner(features=LinearDiscriminantAnalysis(n_components=3)).fit(X[few], y[few], X)
    plain = LinearDiscriminantAnalysis(n_components=3).fit(X[few], y[few])
    assert found.features_.means_.shape == plain.means_.shape
    assert not np.allclose(found.features_.means_, plain.means_)
    assert found.estimators_[0].coef_.shape == (1, 3)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"threshold": 0.0}, "threshold: got 0.0, expected more than 0, or None"),
        ({"growth": 0.5}, "growth: got 0.5"),
        ({"iterations": 0}, "iterations: got 0"),
        ({"verify": 1.5}, "verify: got 1.5"),
        ({"strategy": "uncertan"}, "did you mean 'uncertain'"),
    ],
)
def test_bad_settings_are_refused_when_fitted(settings: dict[str, Any], line: str) -> None:
    X, y = blobs()
    with pytest.raises(ConfigError, match=line):
        learner(**settings).fit(X, y)


def test_what_cannot_be_asked_or_learned_is_refused() -> None:
    X, y = blobs()
    with pytest.raises(NotFittedError):
        learner().query(X)
    with pytest.raises(ConfigError, match="samples of one class only"):
        learner().fit(X, np.zeros(len(X)))
    found = learner().fit(X, y)
    with pytest.raises(DataError, match="asked for 500 of 200"):
        found.query(X, 500)
    with pytest.raises(DataError, match="3 features, expected 2"):
        found.teach(X, y, np.zeros((4, 3)))
    with pytest.raises(ConfigError, match=r"SelfPacedWeights.threshold: got -1"):
        SelfPacedWeights(-1.0)
