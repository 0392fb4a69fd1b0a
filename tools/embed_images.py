"""Make the small image sets that ship in the wheel from the original files.

    python tools/embed_images.py DIRECTORY

DIRECTORY holds `mnist/` and `fashion-mnist/`, each with the four original idx files (plain or .gz). The
rule is fixed: the original training set sorted by label (stably), every sixth image of that, 10,000 in all,
put back in original order; of the original test set every fifth likewise, 2,000 in all. So classes keep their
proportions. Neither the first images nor a plain stride would do: the halves of the MNIST test set were
written by different people, and its even training images are fainter than its odd ones (mean 0.123, 0.139).
Prints the SHA-256 of each uncompressed file, which `neuropil/data/sources.py` records.
"""

from __future__ import annotations

import gzip
import hashlib
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "neuropil" / "data" / "embedded"
STRIDES = {"train": 6, "t10k": 5}


def original(path: Path) -> bytes:
    """Bytes of an idx file, which may have been left compressed."""
    return (
        path.read_bytes()
        if path.exists()
        else gzip.decompress(path.with_name(path.name + ".gz").read_bytes())
    )


def selection(labels: bytes, stride: int) -> list[int]:
    """Positions to keep, ascending: every `stride`-th item once the items are sorted by label."""
    values = labels[8:]
    return sorted(sorted(range(len(values)), key=values.__getitem__)[::stride])


def keep(content: bytes, positions: list[int]) -> bytes:
    """The idx file of the items at `positions` of an idx file of bytes."""
    header = 4 + 4 * content[3]
    size = (len(content) - header) // int.from_bytes(content[4:8], "big")
    items = [content[header + i * size : header + (i + 1) * size] for i in positions]
    return content[:4] + len(items).to_bytes(4, "big") + content[8:header] + b"".join(items)


def main() -> None:
    """Write the embedded files of both data sets."""
    for name in ("mnist", "fashion-mnist"):
        (TARGET / name).mkdir(parents=True, exist_ok=True)
        for part, stride in STRIDES.items():
            positions = selection(original(Path(sys.argv[1]) / name / f"{part}-labels-idx1-ubyte"), stride)
            for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
                content = keep(original(Path(sys.argv[1]) / name / f"{part}-{kind}"), positions)
                (TARGET / name / f"{part}-{kind}.gz").write_bytes(gzip.compress(content, 9, mtime=0))
                sys.stdout.write(f"{name} {part}-{kind} {hashlib.sha256(content).hexdigest()}\n")


if __name__ == "__main__":
    main()
