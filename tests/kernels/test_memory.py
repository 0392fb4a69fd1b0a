from __future__ import annotations

from pathlib import Path

import pytest
import torch

from neuropil.kernels.memory import in_large_pages


def flags(address):
    """What the system knows of the memory at an address: two letters each, hg where large pages are wished for."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if not first.endswith(":"):
            start, stop = (int(part, 16) for part in first.split("-"))
            inside = start <= address < stop
        elif inside and first == "VmFlags:":
            return line.split()[1:]
    raise LookupError(hex(address))


@pytest.mark.skipif(
    not Path("/proc/self/smaps").exists() or not Path("/sys/kernel/mm/transparent_hugepage").exists(),
    reason="the system has no large pages that can be asked for",
)
def test_only_tensors_that_are_new_each_time_ask_for_large_pages():
    block = torch.empty(20 * 2**20)
    middle = block.data_ptr() + 40 * 2**20
    assert "hg" not in flags(middle)
    assert in_large_pages(block) is block
    assert "hg" in flags(middle)
    block.fill_(1)
    assert block.sum() == len(block)
    small = in_large_pages(torch.empty(7 * 2**20))
    assert "hg" not in flags(small.data_ptr() + 14 * 2**20)
