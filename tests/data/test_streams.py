from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from neuropil import data
from neuropil.data.transforms import Rotate
from neuropil.errors import ConfigError, DataError, EmptyTaskError, LabelError, UnknownNameError

RNG = np.random.default_rng(0)
SMALL = data.own_images(  # 6 classes of 5 x 4 pixels
    RNG.integers(0, 256, (120, 5, 4), dtype=np.uint8),
    np.arange(120) % 6,
    RNG.integers(0, 256, (48, 5, 4), dtype=np.uint8),
    np.arange(48) % 6,
    name="small",
)


def streams(kind, **options):
    def factory(seed):
        return data.by_name(kind, seed=seed, train_samples=40, test_samples=20, **options)

    return factory


PARTS = [
    ("source", partial(streams, "permuted-mnist", tasks=3)),
    ("source", partial(streams, "permuted-mnist", tasks=2, flat=False)),
    ("source", partial(streams, "split-mnist")),
    ("source", partial(streams, "split-fashion-mnist", scenario="class", class_order="random")),
    ("source", partial(streams, "rotated-mnist", tasks=3)),
]

sizes = st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(1, 6))


@given(
    seed=st.integers(0, 1000), sizes=sizes, kind=st.sampled_from([data.permuted, data.split, data.rotated])
)
def test_parts_have_the_size_asked_for_and_never_overlap(seed, sizes, kind):
    train, validation, test = sizes
    stream = kind(
        SMALL, tasks=3, seed=seed, train_samples=train, validation_samples=validation, test_samples=test
    )
    for task in stream:
        assert (len(task.train), len(task.validation), len(task.test)) == sizes
        rows = torch.cat([task.train.indices, task.validation.indices])
        assert len(rows.unique()) == train + validation
        assert task.train.inputs is task.validation.inputs is SMALL.train
        assert task.test.inputs is SMALL.test and len(task.test.indices.unique()) == test


@given(seed=st.integers(0, 50), tasks=st.integers(1, 3))
def test_a_shorter_stream_is_the_beginning_of_a_longer_one(seed, tasks):
    for kind in (data.permuted, data.split):
        long, short = kind(SMALL, tasks=3, seed=seed), kind(SMALL, tasks=tasks, seed=seed)
        for a, b in zip(long, short, strict=False):
            assert torch.equal(a.train.gather(range(5))[0], b.train.gather(range(5))[0])
            assert a.checksum == b.checksum
        assert long[:tasks].checksum == short.checksum


def test_permutation_moves_pixels_and_nothing_else():
    stream = data.permuted(SMALL, tasks=3, seed=5)
    original = (SMALL.train.double() / 255 - SMALL.mean) / SMALL.std
    orders = set()
    for task in stream:
        inputs, targets = task.train.gather(range(len(task.train)))
        rows = task.train.indices
        assert torch.equal(targets, SMALL.train_labels[rows])
        flat = original[rows].flatten(1)
        # Column k of the task is column order[k] of the originals: find it, and use every column once.
        distance = (inputs.double()[:, :, None] - flat[:, None, :]).abs().amax(0)
        order = distance.argmin(1)
        assert distance.amin(1).max() < 1e-5 and len(order.unique()) == 20
        orders.add(tuple(order.tolist()))
    assert len(orders) == 3 and tuple(range(20)) not in orders  # the first task is permuted too
    assert torch.equal(stream[0].train.indices, stream[2].train.indices)  # of the same images


def test_the_training_pixels_are_normalised():
    task = data.permuted("mnist", 1, validation_samples=0)[0]
    inputs, _ = task.train.gather(range(10_000))
    assert inputs.dtype == torch.float32 and inputs.shape == (10_000, 784)
    assert float(inputs.double().mean()) == pytest.approx(0, abs=1e-5)
    assert float(inputs.double().std()) == pytest.approx(1, abs=1e-5)


def test_an_image_is_the_flat_input_in_its_shape():
    for name in ("permuted-mnist", "split-mnist", "rotated-mnist"):
        flat = data.by_name(name, tasks=2, flat=True)[1].test[3][0]
        image = data.by_name(name, tasks=2, flat=False)[1].test[3][0]
        assert image.shape == (1, 28, 28) and torch.equal(image.flatten(), flat)


def test_split_gives_each_task_its_classes_and_global_labels():
    stream = data.split(SMALL, 2, seed=1)
    assert [task.classes for task in stream] == [(0, 1), (2, 3), (4, 5)] and stream.n_classes == 6
    for task in stream:
        for part in (task.train, task.validation, task.test):
            assert set(part.labels().tolist()) == set(task.classes)
    assert all(task.classes is None for task in data.split(SMALL, 2, scenario="class"))
    together = torch.cat(
        [task.train.indices for task in stream] + [task.validation.indices for task in stream]
    )
    assert together.sort().values.tolist() == list(range(120))


def test_class_order_is_given_drawn_or_listed():
    listed = data.split(SMALL, 2, class_order=[5, 0, 3, 1])
    assert [task.classes for task in listed] == [(5, 0), (3, 1)]
    drawn = {tuple(t.classes for t in data.split(SMALL, 2, seed=s, class_order="random")) for s in range(5)}
    assert len(drawn) > 1
    assert all(sorted(c for classes in order for c in classes) == list(range(6)) for order in drawn)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_quarter_turns_move_pixels_counterclockwise(quarter_turns):
    images = torch.rand(3, 6, 6, dtype=torch.float64)
    assert torch.allclose(Rotate(90.0 * quarter_turns)(images), torch.rot90(images, quarter_turns, (1, 2)))


@pytest.mark.parametrize(("angle", "shape"), [(17.0, (9, 9)), (-40.0, (8, 12)), (250.0, (11, 6))])
def test_rotation_agrees_with_an_independent_one(angle, shape):
    ndimage = pytest.importorskip("scipy.ndimage", reason="pip install neuropil[bench]")
    image = np.zeros(shape)
    image[2:-2, 2:-2] = np.random.default_rng(0).random((shape[0] - 4, shape[1] - 4))
    expected = ndimage.rotate(np.pad(image, 3), angle, reshape=False, order=1)[3:-3, 3:-3]
    turned = Rotate(angle)(torch.from_numpy(image)[None])[0].numpy()
    assert np.allclose(turned, expected, atol=1e-9)


def test_rotated_angles_are_spread_or_given():
    assert [task.name for task in data.rotated(SMALL, 4)] == ["0°", "45°", "90°", "135°"]
    stream = data.rotated(SMALL, angles=[0, 180], seed=2, flat=False)
    upright, turned = stream[0].test.gather(range(9))[0], stream[1].test.gather(range(9))[0]
    assert torch.allclose(turned, upright.rot90(2, (2, 3)), atol=1e-4)


def test_checksum_belongs_to_data_and_parameters():
    def checksums(images=SMALL, **options):
        options = {"seed": 0, "train_samples": 30} | options
        return {
            kind(images, tasks=2, **options).checksum for kind in (data.permuted, data.split, data.rotated)
        }

    first = checksums()
    assert len(first) == 3 and first == checksums()
    changed = SMALL.test.clone()
    changed[0, 0, 0] ^= 1
    other = data.own_images(SMALL.train, SMALL.train_labels, changed, SMALL.test_labels, name="small")
    for variation in ({"seed": 1}, {"train_samples": 29}, {"flat": False}, {"images": other}):
        assert not first & checksums(**variation)
    assert data.rotated(SMALL, angles=[0, 1]).checksum != data.rotated(SMALL, angles=[0, 1.0000001]).checksum


SCRIPT = """
import hashlib
from neuropil import data
for name in ("permuted-mnist", "split-fashion-mnist", "rotated-mnist"):
    stream = data.by_name(name, tasks=2, seed=7, train_samples=64)
    content = hashlib.sha256(stream.checksum.encode())
    for batch in data.batches(stream.train, 32, seed=1, epoch=2):
        content.update(batch.inputs.numpy().tobytes() + batch.targets.numpy().tobytes())
    print(content.hexdigest())
"""


def test_another_process_sees_the_same_bits():
    there = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    ).stdout.split()
    here = []
    for name in ("permuted-mnist", "split-fashion-mnist", "rotated-mnist"):
        stream = data.by_name(name, tasks=2, seed=7, train_samples=64)
        content = hashlib.sha256(stream.checksum.encode())
        for batch in data.batches(stream.train, 32, seed=1, epoch=2):
            content.update(batch.inputs.numpy().tobytes() + batch.targets.numpy().tobytes())
        here.append(content.hexdigest())
    assert here == there


def test_a_pickled_stream_shares_its_images_still():
    stream = pickle.loads(pickle.dumps(data.permuted(SMALL, 3)))  # noqa: S301
    assert stream[0].train.inputs is stream[2].validation.inputs
    assert torch.equal(stream[1].train[4][0], data.permuted(SMALL, 3)[1].train[4][0])


def test_any_tasks_make_a_stream():
    def part(labels):
        return TensorDataset(torch.zeros(len(labels), 2), torch.tensor(labels))

    stream = data.stream(
        [(part([0, 1]), part([1]), part([0])), data.split(SMALL)[1]], n_classes=6, name="mixed"
    )
    assert [task.index for task in stream] == [0, 1] and stream[1].classes == (2, 3) and stream.n_classes == 6
    assert stream.checksum == ""  # the content of foreign data is not known
    assert data.stream(data.split(SMALL)).n_classes == 6
    assert data.stream([(part([0]), part([4]), part([0]))]).n_classes == 5
    loader = DataLoader(part([0, 4]))
    assert data.stream([(loader, loader, loader)]).n_classes == 0
    with pytest.raises(EmptyTaskError, match="no tasks"):
        data.stream([])


@given(n=st.integers(5, 60), validation=st.floats(0, 0.4), test=st.floats(0, 0.4), seed=st.integers(0, 99))
def test_own_arrays_are_divided_without_overlap(n, validation, test, seed):
    task = data.task_from_arrays(
        np.arange(n)[:, None], np.arange(n), validation=validation, test=test, seed=seed
    )
    parts = [part.labels().tolist() for part in (task.train, task.validation, task.test)]
    assert sorted(row for part in parts for row in part) == list(range(n))
    assert [len(part) for part in parts[1:]] == [round(validation * n), round(test * n)]


@pytest.mark.parametrize("name", ["permuted-mnits", "permute-mnist", "drifting-permuted"])
def test_an_unknown_stream_is_answered_with_the_nearest(name):
    with pytest.raises(UnknownNameError, match="permuted-mnist"):
        data.by_name(name)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: data.permuted(SMALL, 0), EmptyTaskError, "give at least 1"),
        (lambda: data.rotated(SMALL), EmptyTaskError, "give at least 1"),
        (lambda: data.split(SMALL, 2, tasks=4), ConfigError, "at most 3 tasks"),
        (lambda: data.split(SMALL, 7), ConfigError, "at most"),
        (lambda: data.split(SMALL, 0), ConfigError, "at least 1"),
        (lambda: data.split(SMALL, class_order="randm"), ConfigError, "did you mean 'random'"),
        (lambda: data.split(SMALL, class_order=[0, 0]), ConfigError, "at most once"),
        (lambda: data.split(SMALL, class_order=[0, 6]), ConfigError, "0 to 5"),
        (lambda: data.split(SMALL, scenario="tsk"), ConfigError, "did you mean 'task'"),
        (lambda: data.permuted(SMALL, 2, seed=-1), ConfigError, "seed"),
        (lambda: data.permuted(SMALL, 2, train_samples=0), EmptyTaskError, "0 training"),
        (lambda: data.permuted(SMALL, 2, validation_samples=120), EmptyTaskError, "120 validation"),
        (lambda: data.permuted(SMALL, 2, train_samples=119), DataError, "120 for the first two"),
        (lambda: data.permuted(SMALL, 2, test_samples=49), DataError, "48 for test"),
        (lambda: data.rotated(SMALL, 3, angles=[0, 1]), ConfigError, "one of the two"),
        (lambda: data.rotated(([[0.0]], [0], [[0.0]], [0]), 2), DataError, "height"),
        (lambda: data.permuted([1, 2], 2), DataError, "expected a name"),
        (lambda: data.permuted(([[0.0]], [-1], [[0.0]], [0]), 2), LabelError, "from 0 on"),
        (
            lambda: data.task_from_arrays([[0.0]] * 4, [0] * 4, validation=0.5, test=0.5),
            EmptyTaskError,
            "none",
        ),
        (lambda: data.task_from_arrays([[0.0]] * 4, [0] * 3), DataError, "4 inputs but 3"),
    ],
)
def test_what_cannot_be_made_is_told_in_one_line(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
