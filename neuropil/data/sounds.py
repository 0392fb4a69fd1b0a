"""Labelled sounds that are known by name: spoken digits."""

from __future__ import annotations

import hashlib
import importlib
import math
import re
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neuropil.data.cache import cache_directory
from neuropil.errors import (
    ConfigError,
    DataError,
    MissingDataError,
    MissingExtraError,
    UnknownNameError,
    nearest,
)

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

_DIGITS = tuple("0123456789")
LARGEST_SOUND = 4 << 20  # bytes; far more than any of the files


@dataclass(frozen=True)
class SoundSource:
    """A data set of sound files, `<voice>/<digit>.wav` or as a package of an operating system lays them out."""

    name: str
    title: str
    licence: str
    rate: int  # Hz that `load_sounds` gives
    clips: int
    megabytes: float  # to be downloaded; 0 when embedded
    sha256: str  # of all files in the order of their names
    pattern: str  # of the files, with groups `digit` and `voice`
    shipped: Path | None = None
    system: tuple[Path, ...] = ()
    debian: str = ""

    def directory(self) -> Path | None:
        """Where the files are on this machine; None when they are not all there."""
        places = (self.shipped,) if self.shipped else (self.cached(), *self.system)
        return next((place for place in places if len(list(self.files(place))) == self.clips), None)

    def cached(self) -> Path:
        """Where `fetch` puts the files."""
        return cache_directory() / "data" / self.name

    def files(self, directory: Path) -> Iterator[tuple[Path, re.Match[str]]]:
        """Sound files and what their names say, in the order of their names."""
        for path in sorted(directory.rglob("*"), key=lambda path: path.as_posix()):
            match = re.fullmatch(self.pattern, path.relative_to(directory).as_posix())
            if match and path.is_file():
                yield path, match


SOUNDS = {
    source.name: source
    for source in (
        SoundSource(
            name="spoken-digits",
            title="digits spoken by four voices in five languages",
            licence="CC BY-SA 3.0 (Allison Smith, June Wallack), CC BY 3.0 (Carlo Flora, Maxim Topal)",
            rate=8000,
            clips=50,
            megabytes=0.0,
            sha256="e5189acf8135904594940734eadb1e9b7d7ccf74451c773f73d390daf7629633",
            pattern=r"(?P<voice>[a-z-]+)/(?P<digit>[0-9])\.wav",
            shipped=Path(__file__).with_name("embedded") / "spoken-digits",
        ),
        SoundSource(
            name="spoken-digits-tuxpaint",
            title="digits spoken by children and adults in many languages, of Tux Paint",
            licence="GPL-2 (Bill Kendrick and contributors)",
            rate=8000,
            clips=210,
            megabytes=161.0,
            sha256="b1293cd4c15f67d62ea782fd85c4a527a3ae0664e9c024c732f639dd30870091",
            pattern=r"(?P<digit>[0-9])(?:_(?P<voice>(?!desc)[a-zA-Z_]+))?\.ogg",
            system=(Path("/usr/share/tuxpaint/stamps/symbols/math"),),
            debian="tuxpaint-stamps-default",
        ),
    )
}


@dataclass(frozen=True, eq=False)
class Sounds:
    """Labelled sounds of different lengths, with whose voice each is."""

    name: str
    clips: tuple[Float[Tensor, " samples"], ...]  # in [-1, 1]
    labels: Int64[Tensor, " clips"]
    voices: tuple[str, ...]  # language, and speaker where known, of each clip
    rate: int  # samples per second
    checksum: str  # SHA-256 of the content
    licence: str
    class_names: tuple[str, ...]

    def padded(self, seconds: float | None = None) -> Float[Tensor, "clips samples"]:
        """All clips in one tensor, cut or filled with silence to `seconds` (default: the longest).

        Raises ConfigError unless the time is positive.
        """
        if seconds is not None and not seconds > 0:
            raise ConfigError(f"Sounds.padded: got {seconds} seconds, expected a time > 0")
        length = max(map(len, self.clips)) if seconds is None else max(1, round(seconds * self.rate))
        padded = torch.zeros(len(self.clips), length)
        for row, clip in zip(padded, self.clips, strict=True):
            row[: min(length, len(clip))] = clip[:length]
        return padded


def sound_source(name: str) -> SoundSource:
    """The sounds of that name; UnknownNameError names the nearest when there are none."""
    if name not in SOUNDS:
        raise UnknownNameError(f"no sounds are called {name!r}{nearest(name, SOUNDS)}")
    return SOUNDS[name]


def load_sounds(name: str = "spoken-digits") -> Sounds:
    """Load labelled sounds by name, from this machine only; the files are verified by SHA-256.

    `"spoken-digits"` is part of the package: each digit once by four speakers in English, Spanish, French, Italian and
    Russian, telephone quality (8 kHz), from the prompts of Asterisk. `"spoken-digits-tuxpaint"` has about four times
    as many, in twenty languages, from the Debian package `tuxpaint-stamps-default`, which `fetch(name)` gets once; its
    Ogg files need the extra `sound`. They are mixed to one channel and resampled to 8 kHz.

    Raises UnknownNameError for another name, MissingDataError when the files are not on this machine, DataError when
    they are altered and MissingExtraError without soundfile.

    >>> digits = load_sounds("spoken-digits")
    >>> len(digits.clips), digits.rate, sorted(set(digits.voices))[0]
    (50, 8000, 'en-allison')
    """
    known = sound_source(name)
    directory = known.directory()
    if directory is None:
        raise MissingDataError(
            f"sounds {name!r} are not on this machine; get them ({known.megabytes:g} MB) with `neuropil data fetch "
            f"{name}`, install the Debian package {known.debian or 'neuropil'} again, or use 'spoken-digits', "
            "which is part of the package"
        )
    return read_sounds(known, directory)


def read_sounds(known: SoundSource, directory: Path) -> Sounds:
    """Verified sounds from the files in a directory."""
    clips, labels, voices = [], [], []
    verify_sounds(known, directory)
    for path, match in known.files(directory):
        samples, rate = _read_wave(path) if path.suffix == ".wav" else _read_other(path)
        clips.append(resample(samples, rate, known.rate))
        labels.append(int(match["digit"]))
        voices.append(match["voice"] or "en")
    return Sounds(
        known.name,
        tuple(clips),
        torch.tensor(labels),
        tuple(voices),
        known.rate,
        known.sha256,
        known.licence,
        _DIGITS,
    )


def verify_sounds(known: SoundSource, directory: Path) -> None:
    """Raise DataError when the files in a directory are not those of the data set."""
    content = hashlib.sha256()
    for path, _ in known.files(directory):
        if path.stat().st_size > LARGEST_SOUND:
            raise DataError(
                f"sounds {known.name!r}: {path.name} is larger than any of them; fetch them again"
            )
        content.update(path.name.encode() + path.read_bytes())
    if content.hexdigest() != known.sha256:
        raise DataError(
            f"sounds {known.name!r}: files in {directory} are altered or incomplete (SHA-256 differs); fetch them again"
        )


def resample(samples: Float[Tensor, " samples"], rate: int, wanted: int) -> Float[Tensor, " resampled"]:
    """A sound at another rate, by its Fourier series: what is above half of the lower rate is left out.

    Raises ConfigError unless both rates are positive.

    >>> resample(torch.ones(100), 44100, 8000).shape
    torch.Size([18])
    """
    if rate < 1 or wanted < 1:
        raise ConfigError(f"resample: got rates {rate} and {wanted}, expected samples per second > 0")
    if rate == wanted or not len(samples):
        return samples
    # silence on both sides keeps the end of a sound out of its beginning, which a Fourier series joins; in units that
    # are whole numbers of samples at both rates, so that no sample is moved
    unit = rate // math.gcd(rate, wanted)
    margin = -(-rate // (10 * unit)) * unit
    padded = torch.nn.functional.pad(samples, (margin, margin + (-len(samples)) % unit))
    length = len(padded) // unit * (wanted // math.gcd(rate, wanted))
    spectrum = torch.fft.rfft(padded)
    kept = spectrum[: length // 2 + 1]
    kept = torch.nn.functional.pad(kept, (0, length // 2 + 1 - len(kept)))
    sound: Tensor = torch.fft.irfft(kept, length) * (length / len(padded))
    start = margin * wanted // rate
    return sound[start : start + round(len(samples) * wanted / rate)]


def _read_wave(path: Path) -> tuple[Tensor, int]:
    try:
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != 2 or file.getnchannels() != 1:
                raise DataError(f"{path.name}: expected one channel of 16 bits")
            content = file.readframes(file.getnframes())
            rate = file.getframerate()
    except (wave.Error, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    return torch.from_numpy(np.frombuffer(content, "<i2").astype(np.float32) / 32768), rate


def _read_other(path: Path) -> tuple[Tensor, int]:
    try:
        soundfile: Any = importlib.import_module("soundfile")
    except ImportError:
        raise MissingExtraError(f"{path.suffix} files need soundfile: pip install neuropil[sound]") from None
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except RuntimeError as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    return torch.from_numpy(samples.mean(1)), int(rate)
