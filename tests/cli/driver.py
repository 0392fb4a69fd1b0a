"""The command in a process of its own, on the studies of `tests.cli.studies`: PLACE, then the command's words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from neuropil.cli.main import main
from tests.cli.studies import install

if __name__ == "__main__":
    install(Path(sys.argv[1]), pytest.MonkeyPatch())
    main(sys.argv[2:])
