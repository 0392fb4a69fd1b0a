from __future__ import annotations

import gzip
import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from neuropil import data
from neuropil.data.images import read_idx
from neuropil.data.sources import FILES, SOURCES
from neuropil.errors import DataError, LabelError, MissingDataError, UnknownNameError

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ("mnist", "fashion-mnist")
FULL = ("mnist-full", "fashion-mnist-full")


def full(name: str) -> data.Images:
    try:
        return data.load(name)
    except MissingDataError:
        pytest.skip(f"{name} is not on this machine; neuropil data fetch {name}")


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_images_have_the_promised_size_and_keep_the_class_proportions(name):
    images = data.load(name)
    assert images.train.shape == (10_000, 28, 28) and images.test.shape == (2_000, 28, 28)
    assert images.train.dtype == torch.uint8 and images.train_labels.dtype == torch.int64
    assert images.n_classes == 10 and images.licence
    published = {
        "mnist": ([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
                  [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
        "fashion-mnist": ([6000] * 10, [1000] * 10),
    }[name]  # fmt: skip
    for labels, counts, stride in (
        (images.train_labels, published[0], 6),
        (images.test_labels, published[1], 5),
    ):
        assert (labels.bincount() - torch.tensor(counts) / stride).abs().max() < 1


@pytest.mark.parametrize("name", EMBEDDED)
def test_recorded_mean_and_deviation_are_those_of_the_training_pixels(name):
    images = data.load(name)
    pixels = images.train.double() / 255
    assert images.mean == pytest.approx(float(pixels.mean()), abs=1e-8)
    assert images.std == pytest.approx(float(pixels.std(correction=0)), abs=1e-8)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_images_come_from_the_original_parts(name):
    images, original = data.load(name), full(f"{name}-full")
    for part in ("train", "test"):
        whole = {row.tobytes() for row in getattr(original, part).numpy()}
        assert all(row.tobytes() in whole for row in getattr(images, part).numpy())


def test_the_script_that_made_the_embedded_files_makes_them_again(tmp_path):
    spec = importlib.util.spec_from_file_location("embed_images", ROOT / "tools" / "embed_images.py")
    embed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(embed)
    directory = SOURCES["mnist-full"].directory()
    if directory is None:
        pytest.skip("mnist-full is not on this machine")
    positions = embed.selection(embed.original(directory / FILES[3]), 5)
    for file, expected in zip(FILES[2:], SOURCES["mnist"].sha256[2:], strict=True):
        content = embed.keep(embed.original(directory / file), positions)
        assert hashlib.sha256(content).hexdigest() == expected


@pytest.mark.parametrize("name", FULL)
def test_full_data_has_the_known_mean_and_size(name):
    images = full(name)
    assert images.train.shape == (60_000, 28, 28) and images.test.shape == (10_000, 28, 28)
    mean, std = {"mnist-full": (0.1307, 0.3081), "fashion-mnist-full": (0.2860, 0.3530)}[name]
    assert (round(images.mean, 4), round(images.std, 4)) == (mean, std)


def test_missing_data_names_the_ways_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path))
    with pytest.raises(MissingDataError) as error:
        data.load("mnist-full")
    message = str(error.value)
    assert "neuropil data fetch mnist-full" in message and str(tmp_path) in message and "\n" not in message
    entry = next(entry for entry in data.catalogue() if entry.name == "mnist-full")
    assert not entry.present and entry.megabytes > 0


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'fashion-mnist'"):
        data.load("fashion-mnits")


def test_altered_and_truncated_files_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("NEUROPIL_CACHE", str(tmp_path))
    target = SOURCES["mnist-full"].cached()
    target.mkdir(parents=True)
    for file in FILES:  # well-formed, but other data
        content = (SOURCES["mnist"].shipped / f"{file}.gz").read_bytes()
        (target / f"{file}.gz").write_bytes(content)
    with pytest.raises(DataError, match="SHA-256"):
        data.load("mnist-full")
    (target / f"{FILES[0]}.gz").write_bytes(content[:100])
    with pytest.raises(DataError, match="cannot be read"):
        data.load("mnist-full")


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08", bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2]), bytes([0, 0, 9, 1, 0, 0, 0, 1, 1])]
)
def test_what_is_not_an_idx_file_is_refused(content):
    with pytest.raises(DataError, match="idx"):
        read_idx(content)


def test_idx_axes_are_read_in_order():
    content = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(6))
    assert read_idx(content).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_own_arrays_get_statistics_and_a_checksum_of_their_content():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 4, 5), dtype=np.uint8)
    labels = np.arange(20) % 3
    images = data.own_images(pixels, labels, pixels[:5], labels[:5])
    assert images.mean == pytest.approx((pixels / 255).mean()) and images.std == pytest.approx(
        (pixels / 255).std()
    )
    assert images.class_names == ("0", "1", "2") and images.shape == (4, 5)
    changed = pixels.copy()
    changed[3, 1, 1] ^= 1
    other = data.own_images(changed, labels, pixels[:5], labels[:5])
    again = data.own_images(pixels.copy(), labels, pixels[:5], labels[:5])
    assert again.checksum == images.checksum != other.checksum


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros((3, 2)), [0, 1], np.zeros((1, 2)), [0]), DataError, "expected one each"),
        ((np.zeros((2, 2)), [0, -1], np.zeros((1, 2)), [0]), LabelError, "from 0 on"),
        ((np.zeros((2, 2)), [0.0, 1.0], np.zeros((1, 2)), [0]), LabelError, "integers"),
        ((np.zeros((2, 2)), [0, 1], np.zeros((1, 3)), [0]), DataError, "expected the same"),
        ((np.zeros((2, 2), dtype=int), [0, 1], np.zeros((1, 2)), [0]), DataError, "uint8"),
    ],
)
def test_own_arrays_that_do_not_fit_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        data.own_images(*arguments)


def test_embedded_files_are_what_the_notice_says():
    notice = (SOURCES["mnist"].shipped.parent / "NOTICE.md").read_text()
    assert "Attribution-ShareAlike 3.0" in notice and "Zalando" in notice
    for name in EMBEDDED:
        for file, expected in zip(FILES, SOURCES[name].sha256, strict=True):
            content = gzip.decompress((SOURCES[name].shipped / f"{file}.gz").read_bytes())
            assert hashlib.sha256(content).hexdigest() == expected
