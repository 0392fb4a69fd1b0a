"""Results in a child that was forked after threads had been used: it has lost them."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def is_same_in_a_fork(setup: str, result: str) -> bool:
    """Whether the tensor `result`, an expression after the code `setup`, has the same bits in a forked child.

    A process of its own does both, as the test's own threads must not be forked.
    """
    code = f"""
import os, torch
torch.set_num_threads(2)
{textwrap.dedent(setup)}
expected = {result}
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal({result}, expected) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert run.stdout.strip() in ("0", "1"), run.stderr
    return run.stdout.strip() == "0"
