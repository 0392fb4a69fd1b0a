from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from neuropil.kernels import compiled
from neuropil.kernels.compiled import kernel, run_over
from neuropil.kernels.team import find_team
from tests.forked import is_same_in_a_fork


@kernel
def count(start, stop, out, step):
    for j in range(start, stop):
        out[j] += step * (j + 1)


@kernel
def refuse(start, stop, out):
    raise ValueError("no")


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("lanes", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize("team", [True, False])
def test_every_lane_is_visited_exactly_once(threads, lanes, team, monkeypatch):
    if not team:
        monkeypatch.setattr(compiled, "find_team", lambda process: None)
    before = torch.get_num_threads()
    out = np.zeros(lanes)
    try:
        torch.set_num_threads(threads)
        run_over(count, lanes, 1 << 30, out, 0.5, grain=1)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(out, 0.5 * np.arange(1, lanes + 1))


def test_arguments_of_other_types_get_code_of_their_own():
    for dtype in (np.float32, np.float64, np.int64):
        out = np.zeros(500, dtype)
        run_over(count, 500, 1 << 30, out, 2)
        assert np.array_equal(out, 2 * np.arange(1, 501, dtype=dtype))


def test_a_kernel_that_fails_on_the_team_is_told():
    team = find_team(os.getpid())
    if team is None:
        pytest.skip("torch has no team of threads that can be asked here")
    with pytest.raises(RuntimeError, match="refuse: a compiled kernel failed"):
        team.run(refuse.dispatcher, 2, 8, 1, (np.zeros(8),))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_does_without_the_team():
    setup = """
        from neuropil.kernels.leaky import leaky_scan
        x, state = torch.ones(50, 4, 2000), torch.zeros(4, 2000)
    """
    assert is_same_in_a_fork(setup, "leaky_scan(x, state, torch.tensor(0.5))[1]")
