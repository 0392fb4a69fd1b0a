"""What every estimator keeps: scikit-learn's own rules, the same bits from the same seed, and nobody else's state."""

from __future__ import annotations

import copy
import inspect
import pickle
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted

from .parts import Make, parts

# What scikit-learn asks of any estimator, whatever its data looks like.
WITHOUT_DATA = {
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_get_params_invariance",
    "check_set_params",
    "check_parameters_default_constructible",
    "check_do_not_raise_errors_in_init_or_set_param",
    "check_mixin_order",
    "check_valid_tag_types",
    "check_estimator_tags_renamed",
}
ANSWERS = ("predict", "predict_proba", "decision_function", "transform")


class Part(NamedTuple):
    """What `make()` returns, in full: an estimator, why some of scikit-learn's checks do not apply, own data."""

    estimator: Any
    exempt: Mapping[str, str]
    data: tuple[Any, Any] | None


def part(make: Make) -> Part:
    made = make()
    estimator, *more = made if isinstance(made, tuple) else (made,)
    exempt, data = (*more, *({}, None)[len(more) :])
    return Part(estimator, exempt, data)


def checks() -> Iterator[Any]:
    """One test per part and check of scikit-learn's that applies."""
    for parameter in parts("estimator"):
        try:
            estimator, exempt, data = part(parameter.values[0])
            known = list(estimator_checks_generator(estimator))
        except Exception as error:  # a part that cannot be made is one failing test, and hides no other
            yield pytest.param(None, _raiser(error), {}, id=f"{parameter.id}-made")
            continue
        for each, check in known:
            name = getattr(check, "func", check).__name__
            if data is None or name in WITHOUT_DATA:
                yield pytest.param(each, check, exempt, id=f"{parameter.id}-{_label(check)}")


def _raiser(error: Exception) -> Callable[[Any], None]:
    def fail(estimator: Any) -> None:
        raise error

    return fail


def _label(check: Any) -> str:
    given = ",".join(f"{name}={value}" for name, value in getattr(check, "keywords", {}).items())
    return f"{getattr(check, 'func', check).__name__}({given})"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("estimator", "check", "exempt"), list(checks()))
def test_it_does_what_scikit_learn_asks(estimator: Any, check: Any, exempt: Mapping[str, str]) -> None:
    name = getattr(check, "func", check).__name__ if estimator is not None else ""
    if name in exempt:
        pytest.skip(exempt[name])
    check(estimator)


every_estimator = pytest.mark.parametrize("make", parts("estimator"))


def data_of(made: Part) -> tuple[Any, Any]:
    """The part's own data, or 60 flowers of three kinds; numbers to predict where labels will not do."""
    if made.data is not None:
        return made.data
    flowers = load_iris()
    rows = np.random.default_rng(0).permutation(len(flowers.target))[:60]
    inputs = flowers.data[rows]
    return inputs, flowers.target[rows] if is_classifier(made.estimator) else inputs @ np.arange(1.0, 5.0)


def answers(estimator: Any, inputs: Any) -> dict[str, np.ndarray]:
    return {
        name: np.asarray(getattr(estimator, name)(inputs)) for name in ANSWERS if hasattr(estimator, name)
    }


def same(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@every_estimator
def test_it_is_one_of_scikit_learns_and_says_when_it_is_not_fitted(make: Make) -> None:
    made = part(make)
    assert isinstance(made.estimator, BaseEstimator)
    with pytest.raises(NotFittedError):
        check_is_fitted(made.estimator)
    inputs, targets = data_of(made)
    assert made.estimator.fit(inputs, targets) is made.estimator
    check_is_fitted(made.estimator)
    assert answers(made.estimator, inputs)


@every_estimator
def test_same_seed_same_bits_and_nobody_elses_random_state_is_touched(make: Make) -> None:
    found = []
    for process_seed in (1, 2):
        made = part(make)
        inputs, targets = data_of(made)
        np.random.seed(process_seed)  # noqa: NPY002
        random.seed(process_seed)
        torch.manual_seed(process_seed)
        state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
        found.append(answers(made.estimator.fit(inputs, targets), inputs))
        assert torch.equal(state[0], torch.get_rng_state())
        assert np.array_equal(state[1], np.random.get_state()[1])  # noqa: NPY002
        assert state[2] == random.getstate()
    assert same(*found)


@every_estimator
def test_fitting_again_forgets_the_first_fit(make: Make) -> None:
    made, other = part(make), part(make)
    inputs, targets = data_of(made)
    half = len(inputs) // 2
    made.estimator.fit(inputs[:half], targets[:half]).fit(inputs, targets)
    assert same(answers(made.estimator, inputs), answers(other.estimator.fit(inputs, targets), inputs))


@every_estimator
def test_what_it_is_given_stays_as_it_was(make: Make) -> None:
    made = part(make)
    inputs, targets = data_of(made)
    before = copy.deepcopy((inputs, targets))
    answers(made.estimator.fit(inputs, targets), inputs)
    assert np.array_equal(before[0], inputs) and np.array_equal(before[1], targets)


@every_estimator
def test_a_clone_has_its_settings_and_nothing_it_learned(make: Make) -> None:
    made = part(make)
    inputs, targets = data_of(made)
    made.estimator.fit(inputs, targets)
    twin = clone(made.estimator)
    assert repr(twin.get_params()) == repr(made.estimator.get_params())
    with pytest.raises(NotFittedError):
        check_is_fitted(twin)
    assert same(answers(twin.fit(inputs, targets), inputs), answers(made.estimator, inputs))


@every_estimator
def test_it_can_be_sent_to_another_process(make: Make) -> None:
    made = part(make)
    inputs, targets = data_of(made)
    made.estimator.fit(inputs, targets)
    assert same(answers(made.estimator, inputs), answers(pickle.loads(pickle.dumps(made.estimator)), inputs))  # noqa: S301


@every_estimator
def test_each_answer_is_of_its_own_sample(make: Make) -> None:
    made = part(make)
    inputs, targets = data_of(made)
    whole = answers(made.estimator.fit(inputs, targets), inputs)
    some = answers(made.estimator, inputs[3:8])
    for name, value in some.items():
        np.testing.assert_allclose(value, whole[name][3:8], rtol=1e-5, atol=1e-8)


@every_estimator
def test_its_documentation_shows_it_at_work(make: Make) -> None:
    kind = type(part(make).estimator)
    assert ">>> " in (inspect.getdoc(kind) or ""), f"{kind.__name__} has no example"
