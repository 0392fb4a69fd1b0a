"""Threads that share every step of a run: whoever comes, all is done once, and in order."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import torch

from neuropil.kernels import compiled
from neuropil.kernels.compiled import kernel, run_over
from neuropil.kernels.turns import CAN_WAIT, begin, finished, new_turns, wait

pytestmark = pytest.mark.skipif(not CAN_WAIT, reason="threads cannot wait for each other on this platform")


@kernel
def add_all(start, stop, values, turns):
    """Each chunk's next number is one more than the mean of all chunks' last ones: the step, if these are finished."""
    chunks = len(turns) - 1
    for own in range(start, stop):
        for step in range(1, len(values)):
            for other in range(chunks):
                chunk = (own + other) % chunks
                if begin(turns, chunk, step - 1):
                    wait(turns, step - 1)
                    values[step, chunk] += values[step - 1].sum() / chunks + 1
                    finished(turns)


def counted(steps, chunks):
    return np.repeat(np.arange(float(steps))[:, None], chunks, 1)


@pytest.mark.parametrize("chunks", [1, 2, 3, 7])
@pytest.mark.parametrize("team", [True, False])
def test_no_chunk_begins_before_the_last_step_is_finished(chunks, team, monkeypatch):
    if not team:
        monkeypatch.setattr(compiled, "find_team", lambda process: None)
    steps, before = 1000, torch.get_num_threads()
    try:
        torch.set_num_threads(chunks)
        for _ in range(5):
            values, turns = np.zeros((steps, chunks)), new_turns(chunks)
            run_over(add_all, chunks, chunks << 30, values, turns, grain=1)
            assert np.array_equal(values, counted(steps, chunks))
            assert turns[:, 0].tolist() == [steps - 1] * chunks + [(steps - 1) * chunks]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_one_thread_does_the_work_of_all(order):
    values, turns = np.zeros((12, 3)), new_turns(3)
    for own in order:  # the first finds everything undone, the others find nothing left
        add_all(own, own + 1, values, turns)
    assert np.array_equal(values, counted(12, 3))


def test_more_threads_than_cores_end():
    threads = 4 * (os.cpu_count() or 1)
    values, turns = np.zeros((200, threads)), new_turns(threads)
    workers = [threading.Thread(target=add_all, args=(own, own + 1, values, turns)) for own in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert np.array_equal(values, counted(200, threads))
