"""Common corruptions of images at five severities, and streams of tasks that see the same images through them.

Hendrycks and Dietterich: Benchmarking Neural Network Robustness to Common Corruptions and Perturbations. ICLR 2019.
arXiv:1903.12261
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from neuropil.data.arrays import Arrays
from neuropil.data.batching import gather
from neuropil.data.from_images import (
    ImageSource,
    as_images,
    check_tasks,
    finish,
    marked_stream,
    task_of_images,
)
from neuropil.data.task import Stream, Task
from neuropil.data.transforms import Compose, Transform
from neuropil.errors import ConfigError, DataError, ShapeError, UnknownNameError, nearest

if TYPE_CHECKING:
    from jaxtyping import Float

_SIDE = 28.0  # lengths below are in pixels of an image of this side, and grow with the image
_CORRUPTION = 5  # its own random stream among those drawn from one seed


def corrupt(
    images: Float[Tensor, "batch channels height width"],
    kind: str,
    severity: int,
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch channels height width"]:
    """Images `[batch, channels, height, width]` in [0, 1] with one corruption, again in [0, 1]; pure.

    `kind` is one of `CORRUPTIONS`, `severity` 1 (mild) to 5. Levels of noise, contrast, brightness, pixelation and
    JPEG are those published for ImageNet; blurs and the elastic deformation are measured in the image's own side,
    since published radii are for sides of 224. JPEG quantises the cosine transform of blocks of 8 x 8 at the
    published qualities and leaves chroma at full resolution. The same generator state gives the same draws at every
    severity.

    Raises:
        UnknownNameError: no corruption of that name.
        ConfigError: a severity other than 1 to 5.
        ShapeError: not `[batch, channels, height, width]`.
        DataError: pixels that are not floating point in [0, 1].

    >>> corrupt(torch.full((1, 3, 8, 8), 0.5), "brightness", 1)[0, :, 0, 0]
    tensor([0.6000, 0.6000, 0.6000])
    """
    _check(kind, severity)
    if images.dim() != 4:
        raise ShapeError(
            f"corrupt: images are {list(images.shape)}, expected [batch, channels, height, width]"
        )
    if not images.is_floating_point() or (images.numel() and not (images.min() >= 0 and images.max() <= 1)):
        raise DataError(
            f"corrupt: images are {images.dtype}, from {float(images.min()):.3g} to {float(images.max()):.3g}; "
            "expected floating point in [0, 1], before normalisation"
        )
    corruption, levels = _KINDS[kind]
    return corruption(images, levels[severity - 1], generator).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Corruption:
    """A transform of data sets: every image of any data set of pairs with one corruption, held in memory.

    Items of the data set are images `[channels, height, width]` or `[height, width]`, floating point in [0, 1], before
    normalisation; the result has the same shape. Raises what `corrupt` raises.

    >>> photographs = Arrays(torch.rand(4, 3, 8, 8), [0, 1, 0, 1])
    >>> Corruption("motion_blur", 3)(photographs, torch.Generator().manual_seed(0))[0][0].shape
    torch.Size([3, 8, 8])
    """

    kind: str
    severity: int

    def __post_init__(self) -> None:
        _check(self.kind, self.severity)

    def __call__(self, samples: Dataset[Any], generator: torch.Generator | None = None) -> Arrays:
        """The corrupted samples, in the order given."""
        inputs, targets = gather(samples, torch.arange(len(samples)))  # type: ignore[arg-type]
        return Arrays(_any_shape(inputs, self.kind, self.severity, generator), targets)


def corrupted(
    source: ImageSource,
    kinds: Sequence[str] | None = None,
    severity: int | Sequence[int] = 5,
    *,
    tasks: int | None = None,
    seed: int = 0,
    train_samples: int | None = None,
    validation_samples: int | None = None,
    test_samples: int | None = None,
    flat: bool = True,
) -> Stream:
    """The same images and answers, seen through another corruption in each task (domain-incremental).

    `kinds` are names from `CORRUPTIONS`, in this order, and may hold `"clean"`; left out, all of them. With several
    severities, each kind is met at each of them in turn. `tasks` takes only the first so many. Training, validation
    and test images are all corrupted, as bytes like the published sets, and then normalised like the clean ones: learn
    the tasks in turn, or adapt to a task's test images alone. An image's corruption depends on the seed and its place,
    not on the other tasks. Sizes and shapes as in `permuted`.

    Raises UnknownNameError for a kind and ConfigError for a severity that does not exist, EmptyTaskError or DataError
    for sizes that do not fit, ShapeError when the items are not images.

    >>> [task.name for task in corrupted("mnist", ("clean", "jpeg"), 3, train_samples=50, test_samples=50)]
    ['clean', 'jpeg 3']
    """
    images = as_images(source)
    if len(images.shape) not in (2, 3):
        raise ShapeError(
            f"corrupted: items of {images.name} have shape {list(images.shape)}; "
            "expected [height, width] or [channels, height, width]"
        )
    severities = (severity,) if isinstance(severity, int) else tuple(severity)
    chosen = tuple(CORRUPTIONS) if kinds is None else (kinds,) if isinstance(kinds, str) else tuple(kinds)
    pairs = [
        (kind, level) for kind in chosen for level in (severities if kind != "clean" else severities[:1])
    ]
    for kind, level in pairs:
        _check("brightness" if kind == "clean" else kind, level)
    pairs = pairs[:tasks]
    check_tasks("corrupted", len(pairs) if tasks is None else tasks, seed)
    if tasks is not None and tasks > len(pairs):
        raise ConfigError(f"corrupted: {tasks} tasks asked for, kinds and severities give {len(pairs)}")
    sizes = (train_samples, validation_samples, test_samples)
    transform = Compose(finish(images, flat))
    made = []
    for index, (kind, level) in enumerate(pairs):
        name = kind if kind == "clean" else f"{kind} {level}"
        task = task_of_images(images, name, index, transform, sizes, seed)
        made.append(task if kind == "clean" else _corrupted_task(task, kind, level, seed, transform))
    return marked_stream(f"corrupted-{images.name}", images, made, images.n_classes, seed, sizes, flat)


def _corrupted_task(task: Task, kind: str, severity: int, seed: int, transform: Transform) -> Task:
    """The task with the images of its three parts corrupted; parts of one array stay parts of one array."""
    train, validation, test = (cast(Arrays, part) for part in (task.train, task.validation, task.test))
    place = list(CORRUPTIONS).index(kind)

    def corrupt_rows(pool: Tensor, rows: Tensor, part: int) -> Tensor:
        source = np.random.SeedSequence([seed, _CORRUPTION, place, part])
        generator = torch.Generator().manual_seed(int(source.generate_state(1, np.uint64)[0] >> 1))
        return _any_shape(pool.index_select(0, rows), kind, severity, generator)

    rows = torch.cat([train.indices, validation.indices]).sort().values
    pool, labels = corrupt_rows(train.inputs, rows, 0), train.targets.index_select(0, rows)
    parts = [
        Arrays(pool, labels, transform, torch.searchsorted(rows, part.indices))
        for part in (train, validation)
    ]
    test_part = Arrays(corrupt_rows(test.inputs, test.indices, 1), test.labels(), transform)
    return replace(task, train=parts[0], validation=parts[1], test=test_part)


def _check(kind: str, severity: int) -> None:
    if kind not in _KINDS:
        raise UnknownNameError(f"no corruption is called {kind!r}{nearest(kind, _KINDS)}")
    if severity not in (1, 2, 3, 4, 5):
        raise ConfigError(f"corruption {kind!r}: severity {severity!r}, expected 1 (mild) to 5")


def _any_shape(inputs: Tensor, kind: str, severity: int, generator: torch.Generator | None) -> Tensor:
    """Images with or without channels, of bytes or floating point, corrupted in their own shape and type."""
    if inputs.dim() not in (3, 4):
        raise ShapeError(
            f"corruption {kind!r}: an item is {list(inputs.shape[1:])}, "
            "expected [height, width] or [channels, height, width]"
        )
    images = inputs if inputs.dim() == 4 else inputs.unsqueeze(1)
    bytes_given = images.dtype == torch.uint8
    y = corrupt(images.float() / 255 if bytes_given else images, kind, severity, generator=generator)
    y = (y * 255).round_().to(torch.uint8) if bytes_given else y
    return y if inputs.dim() == 4 else y.squeeze(1)


Generator = torch.Generator | None


def _noise(x: Tensor, generator: Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype)


def _gaussian_noise(x: Tensor, sd: float, generator: Generator) -> Tensor:
    return x + sd * _noise(x, generator)


def _speckle_noise(x: Tensor, sd: float, generator: Generator) -> Tensor:
    return x + x * sd * _noise(x, generator)


def _shot_noise(x: Tensor, photons: float, generator: Generator) -> Tensor:
    return torch.poisson(x * photons, generator=generator) / photons


def _impulse_noise(x: Tensor, share: float, generator: Generator) -> Tensor:
    hit = torch.rand(x.shape, generator=generator, dtype=x.dtype) < share
    white = torch.rand(x.shape, generator=generator, dtype=x.dtype) < 0.5
    return torch.where(hit, white.to(x.dtype), x)


def _brightness(x: Tensor, more: float, _: Generator) -> Tensor:
    """A higher value at the same hue and saturation; of a grey image, a higher level."""
    value = x.amax(1, keepdim=True)
    raised = (value + more).clamp_max(1.0)
    return torch.where(value > 0, x * raised / value.clamp_min(1e-12), raised)


def _contrast(x: Tensor, share: float, _: Generator) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return mean + share * (x - mean)


def _pixelate(x: Tensor, share: float, _: Generator) -> Tensor:
    """Each pixel at the mean of its block."""
    rows, columns = (_block_mean(side, max(1, int(side * share)), x.dtype) for side in x.shape[2:])
    return rows @ x @ columns


def _block_mean(side: int, blocks: int, dtype: torch.dtype) -> Tensor:
    block = torch.arange(side) * blocks // side
    together = (block[:, None] == block[None, :]).to(dtype)
    return together / together.sum(1, keepdim=True)


def _filter(x: Tensor, kernel: Tensor) -> Tensor:
    """Every channel filtered with one odd-sized kernel, its border repeated outwards."""
    half_height, half_width = kernel.shape[0] // 2, kernel.shape[1] // 2
    folded = x.flatten(0, 1).unsqueeze(1)
    padded = functional.pad(folded, (half_width, half_width, half_height, half_height), mode="replicate")
    return functional.conv2d(padded, kernel.to(x.dtype)[None, None]).reshape(x.shape)


def _gaussian_kernel(sd: float) -> Tensor:
    half = max(1, math.ceil(3 * sd))
    kernel = torch.exp(-torch.arange(-half, half + 1, dtype=torch.double).square() / (2 * sd * sd))
    return kernel / kernel.sum()


def _scale(x: Tensor) -> float:
    return min(x.shape[2:]) / _SIDE


def _gaussian_blur(x: Tensor, sd: float, _: Generator) -> Tensor:
    kernel = _gaussian_kernel(sd * _scale(x))
    return _filter(_filter(x, kernel[None, :]), kernel[:, None])


def _defocus_blur(x: Tensor, radius: float, _: Generator) -> Tensor:
    """What is out of focus spreads over a disc."""
    radius = radius * _scale(x)
    half = math.ceil(radius)
    at = torch.arange(-half, half + 1, dtype=torch.double)
    disc = (radius + 0.5 - torch.hypot(at[:, None], at[None, :])).clamp(0, 1)
    return _filter(x, disc / disc.sum())


def _motion_blur(x: Tensor, length: float, generator: Generator) -> Tensor:
    """Each image smeared along its own direction, at most 45 degrees from the horizontal."""
    height, width = x.shape[2:]
    length = length * _scale(x)
    angle = (torch.rand(len(x), generator=generator, dtype=torch.double) - 0.5) * (math.pi / 2)
    steps = torch.linspace(-1, 1, 2 * math.ceil(length / 2) + 1, dtype=torch.double)
    weights = torch.exp(-2 * steps.square())
    affine = torch.eye(2, 3, dtype=x.dtype).repeat(len(x), 1, 1)
    y = torch.zeros_like(x)
    for step, weight in zip(steps.tolist(), (weights / weights.sum()).tolist(), strict=True):
        affine[:, 0, 2] = (angle.cos() * step * length / width).to(x.dtype)
        affine[:, 1, 2] = (angle.sin() * step * length / height).to(x.dtype)
        y += weight * _sample(x, functional.affine_grid(affine, list(x.shape), align_corners=False))
    return y


def _sample(x: Tensor, grid: Tensor) -> Tensor:
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _elastic(x: Tensor, displacement: float, generator: Generator) -> Tensor:
    """Pixels moved by a smooth random field; `displacement` is its root mean square."""
    n, _, height, width = x.shape
    kernel = _gaussian_kernel(3.0 * _scale(x))
    margin = len(kernel) // 2  # of more noise, so that the field is as smooth at the border as inside
    field = _noise(x.new_empty(n, 2, height + 2 * margin, width + 2 * margin), generator)
    field = _filter(_filter(field, kernel[None, :]), kernel[:, None])
    field = field[:, :, margin : margin + height, margin : margin + width]
    field = field / field.square().sum(1, keepdim=True).mean((2, 3), keepdim=True).sqrt()
    shift = field * (displacement * _scale(x) * 2)
    identity = functional.affine_grid(
        torch.eye(2, 3, dtype=x.dtype).repeat(n, 1, 1), [n, 1, height, width], align_corners=False
    )
    return _sample(x, identity + torch.stack([shift[:, 0] / width, shift[:, 1] / height], -1))


# Quantisation tables of the JPEG standard (ITU T.81, annex K): of brightness, and of colour.
_BRIGHTNESS_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_COLOUR_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8,) * 4,
)  # fmt: skip
_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))


def _jpeg(x: Tensor, quality: float, _: Generator) -> Tensor:
    """What JPEG loses: cosine coefficients of blocks of 8 x 8 rounded to multiples of its tables."""
    height, width = x.shape[2:]
    rotation = (
        torch.tensor(_TO_YCBCR, dtype=x.dtype) if x.shape[1] == 3 else torch.eye(x.shape[1], dtype=x.dtype)
    )
    y = torch.einsum("ij,njhw->nihw", rotation, x * 255 - 128)
    y = functional.pad(y, (0, -width % 8, 0, -height % 8), mode="replicate")
    rows, columns = y.shape[2] // 8, y.shape[3] // 8
    blocks = y.reshape(*y.shape[:2], rows, 8, columns, 8).transpose(3, 4)
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    colour = torch.tensor(_COLOUR_TABLE) if x.shape[1] == 3 else torch.tensor(_BRIGHTNESS_TABLE)
    tables = torch.stack([torch.tensor(_BRIGHTNESS_TABLE), *[colour] * (x.shape[1] - 1)])
    tables = ((tables * scale + 50) / 100).floor().clamp(1, 255).to(x.dtype)[:, None, None]
    frequency, at = (
        torch.arange(8.0, dtype=torch.double)[:, None],
        torch.arange(8.0, dtype=torch.double)[None, :],
    )
    cosines = torch.cos((2 * at + 1) * frequency * math.pi / 16) / 2
    cosines[0] /= math.sqrt(2)
    dct = cosines.to(x.dtype)
    coefficients = ((dct @ blocks @ dct.mT) / tables).round() * tables
    y = (dct.mT @ coefficients @ dct).transpose(3, 4).reshape(y.shape)[:, :, :height, :width]
    return (torch.einsum("ij,njhw->nihw", torch.linalg.inv(rotation), y) + 128) / 255


_Levels = tuple[float, float, float, float, float]
_KINDS: dict[str, tuple[Callable[[Tensor, float, Generator], Tensor], _Levels]] = {
    "gaussian_noise": (_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),  # standard deviation
    "shot_noise": (_shot_noise, (60, 25, 12, 5, 3)),  # photons of a white pixel
    "impulse_noise": (_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),  # share of pixels
    "speckle_noise": (
        _speckle_noise,
        (0.15, 0.2, 0.35, 0.45, 0.6),
    ),  # standard deviation, of the pixel's value
    "gaussian_blur": (_gaussian_blur, (0.5, 0.75, 1.0, 1.5, 2.0)),  # standard deviation
    "defocus_blur": (_defocus_blur, (0.75, 1.0, 1.5, 2.0, 2.75)),  # radius
    "motion_blur": (_motion_blur, (3, 5, 7, 9, 12)),  # length
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),  # added
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),  # share that is left
    "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),  # resolution that is left
    "jpeg": (_jpeg, (25, 18, 15, 10, 7)),  # quality of 100
    "elastic": (_elastic, (0.4, 0.7, 1.0, 1.4, 2.0)),  # displacement
}
CORRUPTIONS: tuple[str, ...] = tuple(_KINDS)
