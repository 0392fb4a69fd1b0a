from __future__ import annotations

from typing import Any

import pytest
import torch

from neuropil.continual import HebbianSubspace
from neuropil.errors import ConfigError, NonFiniteError, ShapeError, SubspaceError


def circuit_of(n: int = 10, **settings: Any) -> HebbianSubspace:
    return HebbianSubspace(n, generator=torch.Generator().manual_seed(7), **settings)


def test_new_rows_start_orthonormal_and_orthogonal_to_the_frozen() -> None:
    circuit = circuit_of()
    for count in (3, 0, 4, 3):
        circuit.grow(count)
        circuit.freeze()
    torch.testing.assert_close(circuit.directions @ circuit.directions.mT, torch.eye(10))
    with pytest.raises(SubspaceError, match="10 inputs"):
        circuit.grow(1)


def test_growing_rows_take_no_part_in_the_projection() -> None:
    circuit = circuit_of()
    circuit.grow(3)
    assert not circuit.project(torch.rand(4, 10)).any()
    circuit.freeze()
    x = torch.rand(4, 10)
    torch.testing.assert_close(circuit.project(circuit.project(x)), circuit.project(x))


def test_second_task_learns_what_the_first_left() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(200, 2) @ torch.randn(2, 10), torch.randn(200, 2) @ torch.randn(2, 10)
    circuit = circuit_of()
    for activity in (first, torch.cat([first, second])):
        circuit.grow(2)
        for _ in range(300):
            circuit.update(activity)
        circuit.freeze()
    for activity in (first, second):
        assert (activity - circuit.project(activity)).norm() < 0.05 * activity.norm()
    old, new = circuit.frozen[:2], circuit.frozen[2:]
    assert (new @ old.mT).abs().max() < 1e-3


@pytest.mark.parametrize("scale", [1e-3, 0.25, 1e3])
def test_default_rate_does_not_care_about_the_scale_of_activity(scale: float) -> None:
    torch.manual_seed(0)
    x = torch.rand(64, 10, dtype=torch.double)
    found = []
    for factor in (1.0, scale):
        circuit = circuit_of()
        circuit.to(x)
        circuit.grow(3)
        for _ in range(10):
            circuit.update(x * factor)
        found.append(circuit.growing)
    # the bound on a Hebbian change, 10, is the one thing with a scale of its own
    assert (found[0] @ found[0].mT - torch.eye(3)).norm() < 0.5
    if scale < 1:
        torch.testing.assert_close(found[1], found[0])
    else:
        assert found[1].isfinite().all()


def test_what_it_refuses() -> None:
    with pytest.raises(ConfigError, match=r"lr: got -1"):
        circuit_of(lr=-1.0)
    with pytest.raises(ConfigError, match=r"levels: got 0"):
        circuit_of(levels=0)
    circuit = circuit_of()
    circuit.grow(2)
    with pytest.raises(ShapeError, match="9 features, expected 10"):
        circuit.update(torch.rand(3, 9))
    before = circuit.growing.clone()
    with pytest.raises(NonFiniteError):
        circuit.update(torch.full((3, 10), float("nan")))
    assert torch.equal(circuit.growing, before)
    circuit.update(torch.zeros(0, 10))
    circuit.update(torch.zeros(4, 10))
    assert torch.equal(circuit.growing, before)
