from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from neuropil import data
from neuropil.data import CORRUPTIONS, Corruption, corrupt
from neuropil.errors import ConfigError, DataError, EmptyTaskError, ShapeError, UnknownNameError

RANDOM = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "motion_blur", "elastic")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_corrupted(**options):
    def factory(seed):
        return data.corrupted(
            "mnist", seed=seed, train_samples=40, validation_samples=20, test_samples=20, **options
        )

    return factory


def noisy():
    pixels = torch.rand(30, 3, 8, 8, generator=seeded())
    return lambda seed: Corruption("gaussian_noise", 3)(
        TensorDataset(pixels, torch.arange(30) % 3), seeded(seed)
    )


PARTS = [
    ("source", partial(make_corrupted, kinds=CORRUPTIONS[:4])),
    ("source", partial(make_corrupted, kinds=("clean", "elastic"), severity=(1, 5), flat=False)),
    ("source", noisy),
]


def grey() -> torch.Tensor:
    return data.load("fashion-mnist").test[:200, None].float() / 255


def colour() -> torch.Tensor:
    """Smooth colour images of 32 x 32."""
    coarse = torch.rand(40, 3, 6, 6, generator=seeded(1))
    return torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("images", [grey, colour])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_higher_severity_is_further_from_the_clean_image(kind, images):
    x = images()
    away = [(corrupt(x, kind, level, generator=seeded()) - x).square().mean().sqrt() for level in range(1, 6)]
    assert away[0] > 0 and all(a < b for a, b in itertools.pairwise(away))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_same_generator_gives_the_same_bits_and_the_image_given_stays(kind):
    x = grey()[:20]
    before = x.clone()
    first = corrupt(x, kind, 4, generator=seeded(3))
    assert torch.equal(first, corrupt(x, kind, 4, generator=seeded(3))) and torch.equal(x, before)
    assert torch.equal(first, corrupt(x, kind, 4, generator=seeded(4))) != (kind in RANDOM)
    assert corrupt(x.double(), kind, 4, generator=seeded(3)).dtype == torch.double


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(CORRUPTIONS), severity=st.integers(1, 5), channels=st.sampled_from([1, 2, 3]),
    height=st.integers(5, 20), width=st.integers(5, 20),
)  # fmt: skip
def test_any_image_keeps_its_shape_and_range(kind, severity, channels, height, width):
    x = torch.rand(2, channels, height, width, generator=seeded())
    y = corrupt(x, kind, severity, generator=seeded())
    assert y.shape == x.shape and y.isfinite().all() and y.min() >= 0 and y.max() <= 1


@pytest.mark.parametrize(
    "kind", ["gaussian_blur", "defocus_blur", "motion_blur", "pixelate", "contrast", "elastic"]
)
def test_an_even_image_stays_even_where_nothing_is_added(kind):
    x = torch.full((2, 3, 16, 16), 0.3)
    torch.testing.assert_close(corrupt(x, kind, 5, generator=seeded()), x)


def test_noise_has_the_moments_it_is_named_for():
    x = torch.full((4, 1, 200, 200), 0.5, dtype=torch.double)
    gaussian = corrupt(x, "gaussian_noise", 2, generator=seeded())
    assert float(gaussian.mean()) == pytest.approx(0.5, abs=0.002)
    assert float(gaussian.std()) == pytest.approx(0.12, rel=0.02)
    shot = corrupt(x, "shot_noise", 1, generator=seeded())
    assert float(shot.var()) == pytest.approx(0.5 / 60, rel=0.03)  # a Poisson count has its mean as variance
    assert float(corrupt(x, "speckle_noise", 1, generator=seeded()).std()) == pytest.approx(
        0.15 * 0.5, rel=0.02
    )
    impulse = corrupt(x, "impulse_noise", 5, generator=seeded())
    assert float((impulse == 0).double().mean()) == pytest.approx(0.135, abs=0.005)
    assert float((impulse == 1).double().mean()) == pytest.approx(0.135, abs=0.005)


def test_contrast_and_brightness_by_hand():
    x = torch.tensor([[[[0.2, 0.6]], [[0.1, 0.3]], [[0.0, 0.0]]]], dtype=torch.double)
    expected = torch.tensor([[[[0.36, 0.44]], [[0.18, 0.22]], [[0.0, 0.0]]]], dtype=torch.double)
    torch.testing.assert_close(corrupt(x, "contrast", 3), expected)
    brighter = corrupt(x, "brightness", 2)  # the value rises by 0.2, ratios of colours stay
    torch.testing.assert_close(brighter[0, :, 0, 0], torch.tensor([0.4, 0.2, 0.0], dtype=torch.double))
    assert corrupt(torch.zeros(1, 1, 2, 2), "brightness", 4).unique().tolist() == [pytest.approx(0.4)]


def test_gaussian_blur_is_that_of_an_independent_library():
    ndimage = pytest.importorskip("scipy.ndimage")
    x = torch.rand(2, 1, 28, 28, generator=seeded(), dtype=torch.double)
    y = corrupt(x, "gaussian_blur", 3)
    for image, blurred in zip(x, y, strict=True):
        theirs = ndimage.gaussian_filter(image[0].numpy(), 1.0, mode="nearest", truncate=3.0)
        np.testing.assert_allclose(blurred[0].numpy(), theirs, atol=1e-12)


def test_pixelation_is_a_projection_onto_blocks():
    x = torch.rand(1, 1, 28, 28, generator=seeded(), dtype=torch.double)
    y = corrupt(x, "pixelate", 2)  # 14 x 14 blocks of 2 x 2
    torch.testing.assert_close(y[0, 0, 2:4, 6:8], x[0, 0, 2:4, 6:8].mean().expand(2, 2))
    torch.testing.assert_close(corrupt(y, "pixelate", 2), y)


def test_jpeg_quantises_the_cosine_transform():
    """At quality 25 the step of a block's mean is 32 / 8 = 4 levels; a second compression loses nothing more."""
    fft = pytest.importorskip("scipy.fft")
    flat = torch.full((1, 1, 8, 8), 131 / 255, dtype=torch.double)
    assert corrupt(flat, "jpeg", 1).mul(255).unique().tolist() == [pytest.approx(132)]
    x = (
        torch.rand(1, 1, 8, 8, generator=seeded(), dtype=torch.double) * 0.2 + 0.4
    )  # far from the ends of the range
    y = corrupt(x, "jpeg", 1)
    coefficients = fft.dctn(y[0, 0].numpy() * 255 - 128, norm="ortho")
    assert coefficients[0, 0] / 32 == pytest.approx(round(coefficients[0, 0] / 32), abs=1e-9)
    assert coefficients[7, 7] / 198 == pytest.approx(round(coefficients[7, 7] / 198), abs=1e-9)
    torch.testing.assert_close(corrupt(y, "jpeg", 1), y)


def test_elastic_moves_by_what_it_says():
    """An image that holds its own column number shows how far pixels have come."""
    columns = (torch.arange(28.0, dtype=torch.double) / 28).expand(50, 1, 28, 28).contiguous()
    moved = (corrupt(columns, "elastic", 3, generator=seeded()) - columns)[:, :, 6:-6, 6:-6] * 28
    # a displacement of 1 pixel is shared by two directions
    assert float(moved.square().mean().sqrt()) == pytest.approx(0.5**0.5, rel=0.15)


def test_a_stream_shows_every_kind_of_the_same_images():
    stream = data.corrupted("fashion-mnist", ("clean", "contrast", "jpeg"), (2, 4), seed=1, train_samples=30)
    assert [task.name for task in stream] == ["clean", "contrast 2", "contrast 4", "jpeg 2", "jpeg 4"]
    clean = stream[0]
    assert all(torch.equal(task.train.labels(), clean.train.labels()) for task in stream)
    images = data.load("fashion-mnist")
    pixels = stream[1].test.inputs[:5, None].float() / 255
    wanted = corrupt(images.test[clean.test.indices[:5], None].float() / 255, "contrast", 2)
    assert (pixels - wanted).abs().max() <= 0.5 / 255 + 1e-6  # bytes, as the published sets are
    assert torch.equal(clean.test[3][0], data.split(images, 10, seed=1, train_samples=30)[0].test[3][0])


def test_a_task_does_not_depend_on_the_others():
    sizes = {"train_samples": 20, "test_samples": 20, "seed": 2}
    many = data.corrupted("mnist", ("shot_noise", "elastic"), **sizes)
    alone = data.corrupted("mnist", ("elastic",), **sizes)
    assert torch.equal(many[1].test.inputs, alone[0].test.inputs)
    assert torch.equal(data.by_name("corrupted-mnist", 2, **sizes)[1].test.inputs,
                       data.corrupted("mnist", CORRUPTIONS[:2], **sizes)[1].test.inputs)  # fmt: skip


def test_colour_images_of_ones_own():
    pixels = (colour()[:12] * 255).byte()
    images = data.own_images(pixels, np.arange(12) % 3, pixels, np.arange(12) % 3)
    task = data.corrupted(images, ("motion_blur",), 2, flat=False, validation_samples=2)[0]
    assert task.train[0][0].shape == (3, 32, 32) and len(task.train) == 10


class TestRefusals:
    def refuse(self, error, match, call):
        with pytest.raises(error, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)

    def test_names_and_severities(self):
        x = torch.rand(1, 1, 8, 8)
        self.refuse(UnknownNameError, "'gaussian_noise'", lambda: corrupt(x, "gausian_noise", 1))
        self.refuse(UnknownNameError, "'motion_blur'", lambda: data.corrupted("mnist", ("motionblur",)))
        for severity in (0, 6, 2.5):
            self.refuse(ConfigError, "expected 1", lambda severity=severity: corrupt(x, "jpeg", severity))
        self.refuse(ConfigError, "expected 1", lambda: Corruption("jpeg", 9))
        self.refuse(ConfigError, "13 tasks", lambda: data.corrupted("mnist", tasks=13))
        self.refuse(EmptyTaskError, "at least 1", lambda: data.corrupted("mnist", ()))

    def test_images(self):
        self.refuse(ShapeError, "batch, channels", lambda: corrupt(torch.rand(8, 8), "jpeg", 1))
        self.refuse(DataError, "before normalisation", lambda: corrupt(torch.randn(1, 1, 8, 8), "jpeg", 1))
        self.refuse(
            DataError, "before normalisation", lambda: corrupt(torch.full((1, 1, 8, 8), torch.nan), "jpeg", 1)
        )
        vectors = TensorDataset(torch.rand(4, 7), torch.arange(4))
        self.refuse(ShapeError, "an item is", lambda: Corruption("jpeg", 1)(vectors))
