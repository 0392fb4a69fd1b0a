"""Static hashes of code, blind to comments and docstrings."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path


def bytes_hash(path: Path) -> str:
    """Hash of a file as it is; 16 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def code_hash(path: Path) -> str:
    """Hash of what a file computes: its syntax without comments and docstrings; 16 hexadecimal digits."""
    return hashlib.sha256(ast.unparse(ast.parse(path.read_bytes())).encode()).hexdigest()[:16]
