from __future__ import annotations

import numpy as np
import pytest
import torch

from neuropil import data
from neuropil.errors import DataError


class Table(list):
    """Rows with the part of the datasets library's interface that is used."""

    column_names = ("picture", "label")


def table(shape=(4, 5), n=6):
    rng = np.random.default_rng(0)
    return Table({"picture": rng.integers(0, 256, shape, dtype=np.uint8), "label": i % 3} for i in range(n))


@pytest.mark.parametrize(("shape", "expected"), [((4, 5), (1, 4, 5)), ((4, 5, 3), (3, 4, 5))])
def test_images_get_their_channels_first_and_are_scaled(shape, expected):
    rows = table(shape)
    inputs, targets = data.gather(data.from_huggingface(rows, "picture"), [2, 0])
    assert inputs.shape == (2, *expected) and targets.tolist() == [2, 0]
    assert float(inputs[1, -1, 3, 1]) == pytest.approx(rows[0]["picture"].reshape(4, 5, -1)[3, 1, -1] / 255)


def test_batches_and_items_are_the_same():
    samples = data.from_huggingface(table(), "picture")
    batch = next(data.batches(samples, 6, shuffle=False, n_classes=3))
    assert torch.equal(torch.stack([samples[i][0] for i in range(6)]), batch.inputs)


def test_what_does_not_fit_is_told():
    with pytest.raises(DataError, match="no column 'pictur'; did you mean 'picture'"):
        data.from_huggingface(table(), "pictur")
    mixed = Table([*table((4, 5), 1), *table((5, 5), 1)])
    with pytest.raises(DataError, match="one shape"):
        data.gather(data.from_huggingface(mixed, "picture"), [0, 1])

    class Splits(dict):
        column_names = {"train": ["image"], "test": ["image"]}  # noqa: RUF012

    with pytest.raises(DataError, match="train, test"):
        data.from_huggingface(Splits())


def test_a_dataset_of_the_library_itself():
    datasets = pytest.importorskip("datasets", reason="pip install neuropil[huggingface]")
    rows = datasets.Dataset.from_dict({"x": [[0.0, 1.0], [2.0, 3.0]], "y": [1, 0]})
    inputs, targets = data.gather(data.from_huggingface(rows, "x", "y"), [1, 0])
    assert inputs.tolist() == [[2.0, 3.0], [0.0, 1.0]] and targets.tolist() == [0, 1]
    assert inputs.dtype == torch.float32
