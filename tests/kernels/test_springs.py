"""The pull of springs is held against numpy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuropil.errors import ShapeError
from neuropil.kernels import springs
from neuropil.kernels.springs import Springs, add_pulls, pull_gradients, pulls_and_energy


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(0,), (1,), (3, 5), (100, 90), (8192,), (8193,), (4, 3, 50, 40)]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    transposed=st.booleans(),
    one=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equals_the_formula(shape, dtype, transposed, one, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(shape, generator=generator).to(dtype) for _ in range(4)]
    if transposed:
        tensors = [tensor.transpose(0, -1) for tensor in tensors]
    if one:
        tensors[3] = torch.rand((), generator=generator).to(dtype)
    before = [tensor.clone() for tensor in tensors]
    g, w, a, k = (tensor.double().numpy() for tensor in before)
    add_pulls(*([tensor] for tensor in tensors), strength=0.7)
    found = tensors[0]
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    np.testing.assert_allclose(found.double().numpy(), g + 0.7 * k * (w - a), rtol=tolerance, atol=tolerance)
    assert found.dtype == dtype
    assert all(torch.equal(x, y) for x, y in zip(tensors[1:], before[1:], strict=True))


def test_threads_give_the_same_bits():
    torch.manual_seed(0)
    tensors = [torch.randn(300, 500) for _ in range(4)]
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(tensors[0].clone())
            add_pulls([found[-1]], *([tensor] for tensor in tensors[1:]), strength=3.0)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_other_shapes_are_refused():
    with pytest.raises(ShapeError, match="expected one shape"):
        add_pulls([torch.zeros(2)], [torch.zeros(2)], [torch.zeros(3)], [torch.zeros(2)], 1.0)


@pytest.mark.parametrize("cut", [1, 2, 7, 30_000, 100_000])
def test_many_tensors_are_as_one_wherever_the_work_is_cut(cut, monkeypatch):
    shapes = [(0,), (3, 5), (), (200, 300), (1,), (60_000,)]
    generator = torch.Generator().manual_seed(cut)
    columns = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(4)]
    expected = [g + 0.7 * (k * (w - a)) for g, w, a, k in zip(*columns, strict=True)]

    def in_pieces(function, lanes, work, *args):
        for start in range(0, lanes, cut) if cut > 100 else (0, cut, 2 * cut):
            function(start, min(start + cut, lanes) if cut > 100 or start < 2 * cut else lanes, *args)

    monkeypatch.setattr(springs, "run_over", in_pieces)
    add_pulls(*columns, strength=0.7)
    for found, wanted in zip(columns[0], expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    "sizes", [(5,), (4096, 4096), (0, 1, 4095, 3, 0, 20_000, 0), (2, 100_000, 7), (4096,) * 3 + (1,)]
)
def test_pulls_and_energy_are_those_of_the_formula_on_any_number_of_threads(sizes):
    generator = torch.Generator().manual_seed(len(sizes))
    weights, anchors, stiffnesses = ([torch.randn(n, generator=generator) for n in sizes] for _ in range(3))
    threads = torch.get_num_threads()
    answers = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            answers.append(pulls_and_energy(weights, anchors, stiffnesses, 0.7))
    finally:
        torch.set_num_threads(threads)
    (pulls, energy), (others, other) = answers
    assert torch.equal(energy, other) and all(torch.equal(a, b) for a, b in zip(pulls, others, strict=True))
    expected = 0.0
    for pull, w, a, k in zip(pulls, weights, anchors, stiffnesses, strict=True):
        assert torch.equal(pull, (w - a) * k * torch.tensor(0.7))
        expected += 0.35 * float((k.double() * (w.double() - a.double()) ** 2).sum())
    assert float(energy) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sizes", [(5,), (4096, 4096), (0, 1, 4095, 3, 0, 20_000, 0), (2, 200_000, 7)])
def test_pulled_gradients_are_the_sum_with_the_pulls_to_the_last_bit(sizes, threads, dtype):
    generator = torch.Generator().manual_seed(len(sizes))
    gradients, *columns = ([torch.randn(n, generator=generator).to(dtype) for n in sizes] for _ in range(4))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        pulls, energy = pulls_and_energy(*columns, 0.7)
        expected = [g + pull for g, pull in zip(gradients, pulls, strict=True)]
        pulled = pull_gradients(gradients, Springs(*columns, 0.7))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))
    assert pulled.finite and pulled.energy == pytest.approx(float(energy), rel=1e-6)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("one", [False, True])
def test_springs_are_pulled_by_however_they_lie(transposed, one):
    generator = torch.Generator().manual_seed(3)
    g, w, a, k = (torch.randn(40, 30, generator=generator) for _ in range(4))
    g = g.T.contiguous().T if transposed else g
    k = k[0, 0] if one else k
    expected = g + 0.7 * k * (w - a)
    pulled = pull_gradients([g], Springs([w], [a], [k], 0.7))
    torch.testing.assert_close(g, expected)
    assert pulled.energy == pytest.approx(float(0.35 * (k * (w - a) ** 2).sum()), rel=1e-4)


@pytest.mark.parametrize("place", [0, 4095, 4096, 70_000])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_sum_that_is_not_finite_is_found(place, value):
    columns = [[torch.ones(70_001)] for _ in range(4)]
    columns[0][0][place] = value
    assert not pull_gradients(columns[0], Springs(*columns[1:], 1.0)).finite
    columns = [
        [torch.full((70_001,), size)] for size in (3e38, 3e38, 0.0, 1.0)
    ]  # each is finite, the sum is not
    assert not pull_gradients(columns[0], Springs(*columns[1:], 1.0)).finite


def test_springs_know_their_tensors_while_they_stay_where_they_are():
    columns = [[torch.ones(3), torch.ones(2)] for _ in range(3)]
    springs = Springs(*columns, 2.0)
    assert springs.are(*columns, 2.0) and not springs.are(*columns, 3.0)
    assert not springs.are(*([c[0]] for c in columns), 2.0)
    assert not springs.are([torch.ones(3), columns[0][1]], *columns[1:], 2.0)
    columns[0][0].data = torch.ones(3)
    assert not springs.are(*columns, 2.0)
