"""Event recordings in the files that data sets are published in: N-MNIST's folders, and Heidelberg's spoken digits.

Each gives (event array, label) and has a `sensor_size`, as Tonic's data sets do, so `event_task` takes it as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from neuropil.data.events import Events, make_events
from neuropil.errors import DataError, MissingExtraError

_BYTES = 5  # of an event in an N-MNIST file


def read_address_events(path: Path | str) -> Events:
    """Events of one file of N-MNIST or N-Caltech101, five bytes each: x, y, and polarity with 23 bits of microseconds.

    Orchard, Jayawant, Cohen, Thakor: Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades.
    Frontiers in Neuroscience 2015. Raises DataError when there is no such file or it ends within an event.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(bytes([3, 4, 0x80, 0, 7]))  # at x 3, y 4, brighter, after 7 microseconds
    ...     file.flush()
    ...     read_address_events(file.name).tolist()
    [(7, 3, 4, 1)]
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    if len(content) % _BYTES:
        raise DataError(
            f"{path}: {len(content)} bytes are no whole number of events of {_BYTES} bytes; is it cut off?"
        )
    columns = np.frombuffer(content, np.uint8).reshape(-1, _BYTES).T.astype(np.int64)
    x, y, high, middle, low = columns
    return make_events((high & 0x7F) << 16 | middle << 8 | low, x, y, high >> 7)


class EventFolder(Dataset[tuple[Events, int]]):
    """A folder with a folder of `.bin` files for each class, as N-MNIST's `Train` and `Test`: (events, label).

    Classes are the folders' names in order; `names` keeps them. `sensor_size` is (width, height, polarities). Raises
    DataError when there is no such folder or it holds no recording.
    """

    def __init__(
        self, folder: Path | str, sensor_size: tuple[int, int, int] = (34, 34, 2), *, pattern: str = "*.bin"
    ) -> None:
        root = Path(folder)
        if not root.is_dir():
            raise DataError(
                f"{root}: no such folder; expected one with a folder for each class, as N-MNIST's Train"
            )
        self.sensor_size = sensor_size
        self.names = sorted(each.name for each in root.iterdir() if each.is_dir())
        self.files = [
            (path, label)
            for label, name in enumerate(self.names)
            for path in sorted((root / name).glob(pattern))
        ]
        if not self.files:
            raise DataError(f"{root}: no {pattern} in a folder for each class, as in N-MNIST's Train")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Events, int]:
        path, label = self.files[index]
        return read_address_events(path), label


class HeidelbergFile(Dataset[tuple[Events, int]]):
    """Spoken digits or words as spikes of 700 channels, `shd_train.h5` or `ssc_test.h5`: (events, label).

    `speakers` holds who spoke each recording, where the file tells. Cramer, Stradmann, Schemmel, Zenke: The Heidelberg
    Spiking Data Sets for the Systematic Evaluation of Spiking Neural Networks. IEEE TNNLS 2022. The file stays on disk;
    a recording is read when it is asked for.

    Needs h5py. Raises DataError when the file is missing or of another format.
    """

    sensor_size = (700, 1, 1)

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file: Any = None
        file = self._open()
        try:
            self.labels = np.asarray(file["labels"], np.int64)
            same = len(file["spikes/times"]) == len(file["spikes/units"]) == len(self.labels)
            extra = file.get("extra")
            speakers = extra.get("speaker") if extra is not None else None
            self.speakers = None if speakers is None else np.asarray(speakers, np.int64)
        except KeyError as error:
            raise DataError(
                f"{path}: {error.args[0]}; expected labels, spikes/times and spikes/units"
            ) from None
        if not same:
            raise DataError(f"{path}: labels, spikes/times and spikes/units differ in length")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Events, int]:
        file = self._open()
        seconds = np.asarray(file["spikes/times"][index], np.float64)
        events = make_events(np.round(seconds * 1e6), np.asarray(file["spikes/units"][index], np.int64))
        return events, int(self.labels[index])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}  # each worker process opens the file for itself

    def _open(self) -> Any:
        if self._file is None:
            try:
                import h5py  # noqa: PLC0415  (heavy, and only for this format)
            except ImportError:
                raise MissingExtraError(
                    "Heidelberg files need h5py; pip install 'neuropil[events]'"
                ) from None
            try:
                self._file = h5py.File(self.path, "r")
            except OSError as error:
                reason = error.strerror or "it is no HDF5 file"
                raise DataError(f"{self.path}: {reason}; expected shd_train.h5 or one like it") from None
        return self._file
