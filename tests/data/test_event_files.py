"""Files written as the published data sets are laid out, read back."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuropil import data
from neuropil.errors import DataError

EVENTS = st.lists(
    st.tuples(st.integers(0, 2**23 - 1), st.integers(0, 255), st.integers(0, 255), st.integers(0, 1)),
    max_size=30,
)


def written(events: list[tuple[int, int, int, int]]) -> bytes:
    """Five bytes an event, written bit by bit as the format says."""
    bits = "".join(f"{x:08b}{y:08b}{p:01b}{t:023b}" for t, x, y, p in events)
    return int(bits, 2).to_bytes(len(bits) // 8, "big") if bits else b""


@given(EVENTS)
def test_every_event_of_a_file_is_read(tmp_path_factory: pytest.TempPathFactory, events) -> None:
    path = tmp_path_factory.mktemp("events") / "00001.bin"
    path.write_bytes(written(events))
    assert data.read_address_events(path).tolist() == sorted(events, key=lambda event: event[0])


def folder(root: Path, per_class: int = 6, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for label in range(3):
        for number in range(per_class):
            place = root / str(label) / f"{number:05d}.bin"
            place.parent.mkdir(parents=True, exist_ok=True)
            columns = zip(*(rng.integers(0, high, 40) for high in (300_000, 34, 34, 2)), strict=True)
            place.write_bytes(written([tuple(map(int, event)) for event in columns]))
    return root


def test_a_folder_of_recordings_is_a_task(tmp_path: Path) -> None:
    train = data.EventFolder(folder(tmp_path / "Train"))
    assert (len(train), train.names, train[7][1]) == (18, ["0", "1", "2"], 1)
    task = data.event_task(train, data.EventFolder(folder(tmp_path / "Test", 2)), 8)
    frames, label = task.test[5]
    assert frames.shape == (8, 2, 34, 34) and frames.sum() == 40 and label == 2


def heidelberg(path: Path, *, missing: str = "") -> Path:
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for name, kind in (("times", np.float16), ("units", np.uint16)):
            if name != missing:
                column = file.create_dataset(f"spikes/{name}", (4,), dtype=h5py.vlen_dtype(kind))
                for index in range(4):
                    value = rng.random(5 + index) if name == "times" else rng.integers(0, 700, 5 + index)
                    column[index] = value.astype(kind)
        file["labels"] = np.array([3, 0, 19, 3], np.uint16)
        file["extra/speaker"] = np.array([1, 2, 1, 2], np.uint16)
    return path


def test_a_heidelberg_file_is_a_task(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    digits = data.HeidelbergFile(heidelberg(tmp_path / "shd_train.h5"))
    events, label = digits[2]
    with h5py.File(tmp_path / "shd_train.h5") as file:
        seconds, units = np.asarray(file["spikes/times"][2], float), file["spikes/units"][2]
    order = np.argsort(np.round(seconds * 1e6), kind="stable")
    np.testing.assert_array_equal(events["x"], units[order])
    np.testing.assert_allclose(events["t"], seconds[order] * 1e6, atol=0.5)
    assert label == 19 and digits.speakers is not None and digits.speakers.tolist() == [1, 2, 1, 2]
    again = copy.deepcopy(digits)  # as a worker process gets it
    np.testing.assert_array_equal(again[2][0], events)
    frames, _ = data.EventSamples(digits, 10, step=100_000)[2]
    assert frames.shape == (10, 1, 700) and frames.sum() == len(seconds)


def test_what_is_no_recording_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        data.read_address_events(tmp_path / "none.bin")
    (tmp_path / "cut.bin").write_bytes(b"123456")
    with pytest.raises(DataError, match="6 bytes are no whole number"):
        data.read_address_events(tmp_path / "cut.bin")
    with pytest.raises(DataError, match="no such folder"):
        data.EventFolder(tmp_path / "Train")
    with pytest.raises(DataError, match=r"no \*\.bin"):
        data.EventFolder(tmp_path)
    pytest.importorskip("h5py")
    with pytest.raises(DataError, match=r"no HDF5 file|unable"):
        data.HeidelbergFile(tmp_path / "cut.bin")
    with pytest.raises(DataError, match="expected labels, spikes/times and spikes/units"):
        data.HeidelbergFile(heidelberg(tmp_path / "half.h5", missing="units"))


ROOMS: list[TemporaryDirectory[str]] = []  # kept until the process ends


def source(seed: int) -> data.EventSamples:
    ROOMS.append(TemporaryDirectory())
    return data.EventSamples(data.EventFolder(folder(Path(ROOMS[-1].name), seed=seed)), 5)


PARTS = [("source", partial(lambda factory: factory, source))]
