"""Where the contract suites get their parts from.

A test module declares what it brings:

    PARTS = [("module", lif), ("module", partial(lif, reset="zero")), ("plugin", hlop)]

and a suite runs through every part of its kind, from every test module:

    @pytest.mark.parametrize("make", parts("module"))
    def test_something(make): ...

`make` takes no argument and returns a fresh part each time, always the same one after the same
`torch.manual_seed`:

| kind | `make()` returns |
| --- | --- |
| module | `(module, x)`; `x` a tensor, or a tuple of positional arguments (a loss: `(output, target)`); a third item is what the gradient check looks at instead: a smooth variant of a spiking module, or None where the gradient is not the derivative by design |
| parametrization | `(layer, parametrization)` for `layer.weight` |
| optimizer | `factory: parameters -> Optimizer` |
| plugin | `factory: model -> Plugin` |
| learner | `(learner, batch)` |
| edit | `(edit, model)`, `edit: model -> model`; a third item is an input of the model, left out it is `[8, 12]` |
| estimator | the estimator; or `(estimator, {check of scikit-learn's: why it does not apply})`; a third item is the `(X, y)` to use where the estimator does not take tables, `[samples, features]`: of scikit-learn's checks those that need no data are left |
| analysis | `functools.partial(analysis, its inputs)`, called without arguments, gives the frozen result; the suite looks at the inputs |
| source | `factory: seed -> Stream or Dataset` |
"""  # noqa: E501

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from _pytest.mark.structures import ParameterSet

Kind = Literal[
    "module", "parametrization", "optimizer", "plugin", "learner", "edit", "estimator", "analysis", "source"
]
KINDS: tuple[str, ...] = get_args(Kind)
Make = Callable[[], Any]

TESTS = Path(__file__).resolve().parent.parent


def parts(kind: Kind) -> list[ParameterSet]:
    """Every declared part of a kind, as pytest parameters named `room.file-make`."""
    return [pytest.param(make, id=name) for declared, name, make in _declared() if declared == kind]


@cache
def _declared() -> tuple[tuple[str, str, Make], ...]:
    return tuple(part for path in sorted(TESTS.rglob("test_*.py")) for part in _declared_in(path))


def _declared_in(path: Path) -> Iterator[tuple[str, str, Make]]:
    inside = path.relative_to(TESTS).with_suffix("")
    if inside.parts[0] == "contracts" or "\nPARTS" not in path.read_text():
        return
    where = ".".join(inside.parts).replace("test_", "")
    try:
        declared = importlib.import_module(".".join(("tests", *inside.parts))).PARTS
    except pytest.skip.Exception:  # the module needs something that is not installed, and says so itself
        return
    except Exception as error:  # one broken test module must not hide the parts of all others
        yield from ((kind, f"{where}-cannot-be-imported", partial(_fail, error)) for kind in KINDS)
        return
    for kind, make in declared:
        if kind not in KINDS:
            wrong = ValueError(f"{path.name}: PARTS names kind {kind!r}, expected one of {', '.join(KINDS)}")
            yield from ((known, f"{where}-bad-kind", partial(_fail, wrong)) for known in KINDS)
            continue
        yield kind, f"{where}-{_label(make)}", make


def _label(make: Make) -> str:
    if isinstance(make, partial):
        given = [*map(_word, make.args), *(f"{name}={_word(value)}" for name, value in make.keywords.items())]
        return f"{_label(make.func)}({','.join(given)})"
    return getattr(make, "__name__", type(make).__name__)


def _word(value: object) -> str:
    """The same in every process: no address of an object."""
    return _label(value) if isinstance(value, partial) else getattr(value, "__name__", str(value))


def _fail(error: Exception) -> None:
    raise error
