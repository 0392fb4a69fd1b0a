"""What every analysis keeps: same inputs same results, nothing it was given is touched, and it can be looked at."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
import pickle
import random
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuropil.errors import MissingExtraError, NeuropilError
from tests.contracts.parts import Make, parts

every_analysis = pytest.mark.parametrize("make", parts("analysis"))
SIMPLE = (Tensor, np.ndarray, np.generic, str, bytes, int, float, complex, type(None))


def fresh(make: Make, seed: int = 0) -> partial[Any]:
    torch.manual_seed(seed)
    call = make()
    assert isinstance(call, partial), "make() returns functools.partial(analysis, its inputs)"
    return call


def given(call: partial[Any]) -> list[Any]:
    return [*call.args, *call.keywords.values()]


def leaves_of(value: Any) -> Iterator[Any]:
    """Everything simple in an input or a result, down through modules, dataclasses, data sets and containers."""
    if isinstance(value, nn.Module):
        yield from value.state_dict().values()
        yield from (module.training for module in value.modules())
        yield from (p.requires_grad for p in value.parameters())
        yield from (p.grad for p in value.parameters())
        yield from (
            len(hooks)
            for m in value.modules()
            for hooks in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)
        )
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from leaves_of({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    elif isinstance(value, Mapping):
        for name in value:
            yield from leaves_of(name)
            yield from leaves_of(value[name])
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from leaves_of(item)
    elif isinstance(value, torch.utils.data.TensorDataset):
        yield from value.tensors
    elif isinstance(value, SIMPLE):
        yield value


def same(a: Any, b: Any) -> bool:
    left, right = list(leaves_of(a)), list(leaves_of(b))
    return len(left) == len(right) and all(map(identical, left, right))


def identical(x: Any, y: Any) -> bool:
    if type(x) is not type(y):
        return False
    if isinstance(x, Tensor):
        return (
            x.dtype == y.dtype and x.shape == y.shape and torch.equal(x.nan_to_num(7.25), y.nan_to_num(7.25))
        )
    if isinstance(x, np.ndarray):
        return x.dtype == y.dtype and np.array_equal(x, y, equal_nan=x.dtype.kind in "fc")
    return bool(x == y) or (isinstance(x, float | np.floating) and math.isnan(x) and math.isnan(y))


def random_states() -> list[Any]:
    return [torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()]  # noqa: NPY002


@every_analysis
def test_the_result_is_frozen_and_its_fields_are_named(make: Make) -> None:
    result = fresh(make)()
    assert dataclasses.is_dataclass(result) and not isinstance(result, type)
    fields = dataclasses.fields(result)
    assert fields
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(result, fields[0].name, None)
    assert list(leaves_of(result)), "a result holds tensors, arrays, numbers or text"


@every_analysis
def test_results_are_detached_from_what_they_came_from(make: Make) -> None:
    found = fresh(make)()
    assert not any(leaf.requires_grad for leaf in leaves_of(found) if isinstance(leaf, Tensor))


@every_analysis
def test_same_inputs_same_results(make: Make) -> None:
    first, second = fresh(make)(), fresh(make)()
    assert same(first, second)


@every_analysis
def test_random_state_of_the_process_is_neither_read_nor_moved(make: Make) -> None:
    call, twin = fresh(make), fresh(make)
    torch.manual_seed(1)
    before = random_states()
    first = call()
    assert same(before, random_states())
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    random.seed(2)
    assert same(first, twin())


@every_analysis
def test_what_it_is_given_stays_untouched(make: Make) -> None:
    call = fresh(make)
    inputs = [value for value in given(call) if not isinstance(value, torch.Generator)]
    before = copy.deepcopy(list(leaves_of(inputs)))
    call()
    assert same(before, list(leaves_of(inputs)))
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


@every_analysis
def test_it_can_be_sent_to_another_process(make: Make) -> None:
    result = fresh(make)()
    assert same(result, pickle.loads(pickle.dumps(result)))  # noqa: S301


@every_analysis
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_in_one_line(make: Make, value: float) -> None:
    call = fresh(make)
    arrays = [
        leaf
        for argument in given(call)
        if not isinstance(argument, nn.Module)
        for leaf in leaves_of(argument)
        if (isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel())
        or (isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f" and leaf.size)
    ]
    if not arrays:
        pytest.skip("is given no array of numbers")
    arrays[0].reshape(-1)[0] = value
    assert not np.isfinite(np.asarray(arrays[0])).all()
    with pytest.raises(NeuropilError) as caught:
        call()
    assert "\n" not in str(caught.value)


@every_analysis
def test_it_plots_something_and_keeps_its_numbers(make: Make) -> None:
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    result = fresh(make)()
    before = copy.deepcopy(list(leaves_of(result)))
    figure = result.plot()
    assert isinstance(figure, Figure)
    assert any(axes.has_data() for axes in figure.axes)
    assert any(axes.get_xlabel() or axes.get_ylabel() or axes.get_title() for axes in figure.axes)
    page = io.BytesIO()
    figure.savefig(page, format="png", dpi=40)
    assert page.getvalue().startswith(b"\x89PNG")
    assert same(before, list(leaves_of(result)))
    assert result.plot() is not figure
    assert not pyplot.get_fignums(), "a figure that pyplot keeps is never freed"


@every_analysis
def test_without_matplotlib_only_the_plot_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = fresh(make)()
    with pytest.raises(MissingExtraError, match="matplotlib") as caught:
        result.plot()
    assert "\n" not in str(caught.value)
