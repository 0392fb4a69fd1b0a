"""Make the texts that ship in the wheel.

    python tools/embed_texts.py NOVEL

NOVEL is a plain text of Jane Austen's Emma. The other text is made of the sources of modules of the standard library
of the Python that runs this (3.11.7 for the one that ships). Both are ASCII with lines as they are, gzipped without a
date. Prints the SHA-256 of each uncompressed text, which `neuropil/data/texts.py` records.
"""

from __future__ import annotations

import gzip
import hashlib
import sys
import sysconfig
import unicodedata
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "neuropil" / "data" / "embedded" / "texts"
MODULES = (
    "argparse", "ast", "bisect", "calendar", "collections/__init__", "configparser", "contextlib", "copy", "csv",
    "dataclasses", "datetime", "difflib", "enum", "fnmatch", "fractions", "functools", "glob", "gzip", "heapq",
    "inspect", "json/decoder", "json/encoder", "json/__init__", "logging/__init__", "pathlib", "pprint", "queue",
    "random", "shutil", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap", "threading",
    "tokenize", "traceback", "typing", "uuid", "weakref", "zipfile",
)  # fmt: skip


def plain(text: str) -> bytes:
    """ASCII of a text, accents dropped."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore")


def main() -> None:
    """Write both texts."""
    library = Path(sysconfig.get_path("stdlib"))
    texts = {
        "emma": plain(Path(sys.argv[1]).read_text(encoding="utf-8")),
        "python": plain("\n\n".join((library / f"{m}.py").read_text(encoding="utf-8") for m in MODULES)),
    }
    for name, content in texts.items():
        (TARGET / f"{name}.txt.gz").write_bytes(gzip.compress(content, 9, mtime=0))
        sys.stdout.write(f"{name} {len(content)} {hashlib.sha256(content).hexdigest()}\n")


if __name__ == "__main__":
    main()
