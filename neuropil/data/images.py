"""Labelled images: those that neuropil knows by name, and one's own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuropil.data.sounds import SOUNDS
from neuropil.data.sources import FILES, SOURCES, Source, read_stored, source
from neuropil.errors import DataError, LabelError, MissingDataError

if TYPE_CHECKING:
    from jaxtyping import Int64, UInt8


@dataclass(frozen=True, eq=False)
class Images:
    """A labelled data set with its original division into training and test part.

    Pixels are bytes in [0, 255]; `mean` and `std` are those of the training pixels divided by 255. Own arrays
    may also hold floating point features of any shape, whose `mean` and `std` are in their own unit.
    """

    name: str
    train: UInt8[Tensor, "train height width"]
    train_labels: Int64[Tensor, " train"]
    test: UInt8[Tensor, "test height width"]
    test_labels: Int64[Tensor, " test"]
    mean: float
    std: float
    checksum: str  # SHA-256 of the content
    licence: str
    class_names: tuple[str, ...]

    @property
    def n_classes(self) -> int:
        """Number of different labels, which are 0 ... n_classes - 1."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one item, without channels: (28, 28)."""
        return tuple(self.train.shape[1:])


class CatalogueEntry(NamedTuple):
    """One line of the catalogue of data sets."""

    name: str
    title: str
    present: bool  # on this machine, ready to be loaded
    megabytes: float  # to download; 0 when it is part of the package
    train: int  # images, or sounds, which have no division
    test: int
    licence: str


def catalogue() -> list[CatalogueEntry]:
    """Data sets known by name, whether they are on this machine, their sizes and licences.

    >>> [entry.name for entry in catalogue() if not entry.megabytes]
    ['mnist', 'fashion-mnist', 'spoken-digits']
    """
    images = [
        CatalogueEntry(
            s.name, s.title, s.directory() is not None, s.megabytes, s.train_size, s.test_size, s.licence
        )
        for s in SOURCES.values()
    ]
    sounds = [
        CatalogueEntry(s.name, s.title, s.directory() is not None, s.megabytes, s.clips, 0, s.licence)
        for s in SOUNDS.values()
    ]
    return images + sounds


def load(name: str) -> Images:
    """Load a data set by name, from this machine only; its content is verified by SHA-256.

    `"mnist"` and `"fashion-mnist"` are part of the package: 10,000 training and 2,000 test images of 28 x 28
    bytes each, chosen by a fixed rule from the original parts. `"mnist-full"` and `"fashion-mnist-full"` are
    the originals, 60,000 and 10,000 images; `fetch(name)` gets them once.

    Raises UnknownNameError for another name, MissingDataError when the files are not on this machine and
    DataError when they are altered.

    LeCun et al., "Gradient-based learning applied to document recognition", 1998; Xiao et al.,
    "Fashion-MNIST", arXiv:1708.07747.

    >>> load("mnist").train.shape
    torch.Size([10000, 28, 28])
    """
    known = source(name)
    directory = known.directory()
    if directory is None:
        raise MissingDataError(
            f"data set {name!r} is not on this machine; get it ({known.megabytes:g} MB) with "
            f"`neuropil data fetch {name}` or neuropil.data.fetch({name!r}), put its four idx files in "
            f"{known.cached()}, or use {name.removesuffix('-full')!r}, which is part of the package"
        )
    return read_images(known, {file: read_stored(directory / file) for file in FILES})


def read_images(known: Source, contents: dict[str, bytes]) -> Images:
    """Verified images from the contents of the four files of a data set."""
    for file, expected in zip(FILES, known.sha256, strict=True):
        if hashlib.sha256(contents[file]).hexdigest() != expected:
            raise DataError(
                f"data set {known.name!r}: {file} is altered or incomplete (SHA-256 differs); fetch it again"
            )
    train, train_labels, test, test_labels = (read_idx(contents[file]) for file in FILES)
    return Images(
        name=known.name,
        train=train,
        train_labels=train_labels.long(),
        test=test,
        test_labels=test_labels.long(),
        mean=known.mean,
        std=known.std,
        checksum=hashlib.sha256("".join(known.sha256).encode()).hexdigest(),
        licence=known.licence,
        class_names=known.class_names,
    )


def read_idx(content: bytes) -> Tensor:
    """Array of unsigned bytes in an idx file: two zeros, type 8, number of axes, big-endian lengths, data.

    >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
    tensor([7, 9], dtype=torch.uint8)
    """
    axes = content[3] if len(content) > 3 else 0
    start = 4 + 4 * axes
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes)]
    if content[:3] != b"\0\0\x08" or not axes or len(content) != start + int(np.prod(shape)):
        raise DataError(
            "not an idx file of unsigned bytes, or truncated; expected 00 00 08, axes, lengths, data"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(shape)


def own_images(
    train: Any,
    train_labels: Any,
    test: Any,
    test_labels: Any,
    *,
    name: str = "own",
    class_names: tuple[str, ...] | None = None,
    licence: str = "",
) -> Images:
    """Own arrays or tensors as `Images`, so that streams can be made of them.

    Inputs are `[n, height, width]` bytes in [0, 255], or floating point features `[n, ...]`; labels are
    integers `[n]`, 0 ... classes - 1. Raises DataError when lengths, shapes or types do not fit and
    LabelError when a label is negative or has no name.

    >>> import numpy as np
    >>> images = own_images(np.zeros((4, 2, 2)), [0, 1, 0, 1], np.zeros((2, 2, 2)), [0, 1])
    >>> images.n_classes, images.shape
    (2, (2, 2))
    """
    parts = []
    for part, x, y in (("train", train, train_labels), ("test", test, test_labels)):
        inputs, labels = torch.as_tensor(np.asarray(x)), torch.as_tensor(np.asarray(y))
        if inputs.dtype not in (torch.uint8, torch.float16, torch.float32, torch.float64):
            raise DataError(
                f"{name} {part}: inputs are {inputs.dtype}; expected uint8 pixels or floating point"
            )
        if labels.ndim != 1 or len(labels) != len(inputs) or not len(labels):
            raise DataError(
                f"{name} {part}: inputs {list(inputs.shape)}, labels {list(labels.shape)}; expected one each"
            )
        if labels.is_floating_point() or labels.dtype == torch.bool or labels.min() < 0:
            raise LabelError(
                f"{name} {part}: labels must be integers from 0 on, got {labels.dtype}, least {labels.min()}"
            )
        parts += [inputs, labels.long()]
    if parts[0].shape[1:] != parts[2].shape[1:] or parts[0].dtype != parts[2].dtype:
        raise DataError(
            f"{name}: train items are {parts[0].dtype} {list(parts[0].shape[1:])}, "
            f"test items {parts[2].dtype} {list(parts[2].shape[1:])}; expected the same"
        )
    highest = int(max(parts[1].max(), parts[3].max()))
    names = class_names or tuple(str(i) for i in range(highest + 1))
    if highest >= len(names):
        raise LabelError(f"{name}: label {highest} has no name; class_names gives {len(names)}")
    mean, std = _statistics(parts[0])
    content = hashlib.sha256()
    for tensor in parts:
        content.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        content.update(np.ascontiguousarray(tensor.numpy()).data)
    x, y, test_x, test_y = parts
    return Images(name, x, y, test_x, test_y, mean, std, content.hexdigest(), licence, names)


def _statistics(inputs: Tensor) -> tuple[float, float]:
    """Mean and standard deviation in double precision; bytes count as fractions of 255."""
    values = inputs.numpy()
    if inputs.dtype == torch.uint8:
        counts = np.zeros(256)
        for chunk in np.array_split(values, max(1, values.size >> 22)):
            counts += np.bincount(chunk.ravel(), minlength=256)
        levels = np.arange(256) / 255
        mean = float(counts @ levels / counts.sum())
        return mean, float(np.sqrt(counts @ (levels - mean) ** 2 / counts.sum()))
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
