"""Running a few lines of a peer library in its own environment, where it is prepared."""

from __future__ import annotations

import io
import subprocess
import textwrap

import numpy as np
import pytest

from benchmarks import environments

_FRAME = """
import io, sys
import numpy as np
given = dict(np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False))
out = sys.stdout.buffer
sys.stdout = sys.stderr
{body}
target = io.BytesIO()
np.savez(target, **result)
out.write(target.getvalue())
"""


def ask_peer(environment: str, body: str, **arrays: object) -> dict[str, np.ndarray]:
    """`result` of `body`, which sees the arrays as `given`; skips the test where the environment is absent."""
    try:
        python = environments.python(environment, prepare=False)
    except environments.AbsentError as error:
        pytest.skip(str(error))
    source = io.BytesIO()
    np.savez(source, **{name: np.asarray(value) for name, value in arrays.items()})
    script = _FRAME.format(body=textwrap.dedent(body))
    done = subprocess.run(
        [str(python), "-c", script], input=source.getvalue(), capture_output=True, timeout=250
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as found:
        return dict(found)
