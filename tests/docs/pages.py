"""Python blocks of Markdown pages. A block marked `python` is executed; one marked `py` is shown only."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def script(page: Path) -> str:
    """All blocks of a page as one script, each line where it stands in the page, so that errors name the place."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * (text.count("\n") + 1)
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1))
        code = block.group(1).splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines) + "\n"


def execute(page: Path, place: Path, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a page's blocks in a process of their own, in a directory of their own."""
    path = place / f"{page.stem.replace('-', '_').lower()}.py"
    path.write_text(script(page), encoding="utf-8")
    environment = {
        **os.environ,
        "NEUROPIL_CACHE": str(cache or place / "cache"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        [sys.executable, path.name], cwd=place, env=environment, capture_output=True, text=True, timeout=240
    )
