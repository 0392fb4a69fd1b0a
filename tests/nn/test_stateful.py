from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from neuropil.errors import NonFiniteError, StateError
from neuropil.nn import Stateful
from neuropil.nn.finite import check_finite


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


class Scale(nn.Linear, Stateful):
    """A stateful part may at the same time be an ordinary torch layer."""

    def forward(self, input: Tensor, state: Pair | None = None) -> tuple[Tensor, Pair]:  # type: ignore[override]
        y = super().forward(input)
        return y, state or Pair(y[-1], y[-1])


def test_state_of_another_shape_is_told_by_field() -> None:
    cell, x = Stateful(), torch.zeros(5, 2, 3)
    good = torch.zeros(2, 3)
    cell.check_state(Pair(good, good), x)
    with pytest.raises(StateError, match=r"state.second has shape \[4, 3\], the input needs \[2, 3\]"):
        cell.check_state(Pair(good, torch.zeros(4, 3)), x)


@pytest.mark.parametrize("state", [torch.zeros(2, 3), (torch.zeros(2, 3),), 1.0])
def test_what_is_no_state_is_told(state: object) -> None:
    with pytest.raises(StateError, match=rf"state is a {type(state).__name__}, expected"):
        Stateful().check_state(state, torch.zeros(5, 2, 3))


def test_held_input_is_an_expanded_sequence_unless_overridden() -> None:
    cell, x = Scale(3, 2), torch.randn(4, 3)
    y, _ = cell.forward_static(x, 6)
    torch.testing.assert_close(y, cell(x)[0].expand(6, 4, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_finite_check_is_not_fooled_by_overflow(dtype: torch.dtype) -> None:
    x = torch.full((4, 3), torch.finfo(dtype).max, dtype=dtype)
    check_finite(x, "x")
    check_finite(-x, "x")
    for bad in ("nan", "inf", "-inf"):
        with pytest.raises(NonFiniteError, match="x: 1 of 12 values are NaN or infinite"):
            check_finite(
                x.index_fill(0, torch.tensor(0), 1).clone().put_(torch.tensor(5), x.new_tensor(float(bad))),
                "x",
            )


def test_finite_check_passes_over_what_cannot_be_infinite() -> None:
    check_finite(torch.zeros(3, dtype=torch.uint8), "x")
    check_finite(torch.zeros(0, 3), "x")
