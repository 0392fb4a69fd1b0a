"""Sums of delayed inputs, `y[t] = sum_n taps[:, :, n] x[t - n]`, at a fraction of the multiplications.

A convolution over time is a product for each frequency. A complex product takes three real ones (Gauss), and what comes
before and after them are sums over time, that is, products with small matrices. So the whole is `after @ ((into @ x) *
(over @ taps))`, exact up to rounding: 1.5 multiplications for each input, output and step, where the sum has one for
each tap. Blocks of long sequences, overlapping by the longest delay, keep the matrices small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from neuropil.errors import ShapeError
from neuropil.kernels.memory import keep_freed_memory

if TYPE_CHECKING:
    from jaxtyping import Float

_WORTH_TRANSFORMING = 4  # times fewer multiplications, which pay for the transforms
_BLOCK = 96  # steps that one transform covers at least, of a sequence that has them


def delayed_sum(
    line: Float[Tensor, "past+time batch inputs"], taps: Float[Tensor, "outputs inputs past+1"]
) -> Float[Tensor, "time batch outputs"]:
    """Weighted sums of the last inputs: `taps[:, :, n]` are the weights of what came `n` steps ago.

    `line` begins with the `past` steps before the first output. Differentiable in both. Equal to
    `delayed_sum_reference` within the rounding of float32 or float64; short sequences, few taps and other types take
    the reference's way. Raises ShapeError when the arguments do not fit together.

    >>> delayed_sum(torch.arange(6.0).view(6, 1, 1), torch.tensor([[[0.0, 0.0, 1.0]]])).flatten().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    if line.dim() != 3 or taps.dim() != 3 or line.shape[2] != taps.shape[1] or len(line) < taps.shape[2]:
        raise ShapeError(
            f"delayed_sum: line {list(line.shape)} does not fit taps {list(taps.shape)}, "
            "expected [past + time, batch, inputs] and [outputs, inputs, past + 1]"
        )
    many = taps.shape[2]
    steps = len(line) - many + 1
    exact = line.dtype == taps.dtype and line.dtype in (torch.float32, torch.float64)
    if not exact or torch.is_autocast_enabled(line.device.type) or line.shape[1] * line.shape[2] == 0:
        return delayed_sum_reference(line, taps)
    size = min(steps, max(_BLOCK, 3 * many))
    if steps * many < _WORTH_TRANSFORMING * 1.5 * -(-steps // size) * (size + many - 1):
        return delayed_sum_reference(line, taps)
    if not torch.compiler.is_compiling():
        keep_freed_memory()
    return _transformed(line, taps, size)


def delayed_sum_reference(line: Tensor, taps: Tensor) -> Tensor:
    """The same as one dense convolution over time."""
    return functional.conv1d(line.permute(1, 2, 0), taps.flip(-1)).permute(2, 0, 1)


def _transformed(line: Tensor, taps: Tensor, size: int) -> Tensor:
    """The sum by frequencies, `size` steps at a time."""
    outputs, inputs, many = taps.shape
    batch, past = line.shape[1], many - 1
    steps = len(line) - past
    blocks = -(-steps // size)
    if blocks * size > steps:
        line = functional.pad(line, (0, 0, 0, 0, 0, blocks * size - steps))
    if blocks == 1:
        windows = line.reshape(len(line), -1)
    else:  # [size + past, blocks * batch * inputs]
        windows = line.unfold(0, size + past, size).permute(3, 0, 1, 2).reshape(size + past, -1)
    matrices = _matrices(size, many, line)
    products = torch.bmm(
        (matrices.into @ windows).view(-1, blocks * batch, inputs),
        (matrices.over @ taps.reshape(-1, many).mT).view(-1, outputs, inputs).mT,
    )
    y = (matrices.after @ products.flatten(1)).view(size, blocks, batch, outputs)
    return y.transpose(0, 1).reshape(blocks * size, batch, outputs)[:steps]


class _Matrices(NamedTuple):
    """What makes products of a convolution."""

    into: Tensor  # [products, size + past], from a window of the input
    over: Tensor  # [products, taps]
    after: Tensor  # [size, products], to the output


def _matrices(size: int, taps: int, like: Tensor) -> _Matrices:
    """Cosines and sines of a window's frequencies, each pair with its difference for Gauss's third product.

    The window is as long as its input: of the circular convolution, only the first `past` outputs wrap around, and
    those are not asked for. Its length is made odd, so that no frequency but the mean lacks a sine.
    """
    past = taps - 1
    window = size + past + (size + past + 1) % 2
    count = window // 2 + 1
    device = like.device
    angle = torch.arange(window, device=device, dtype=torch.float64) * (2 * torch.pi / window)
    cosine, sine = angle.cos(), angle.sin()
    frequency = torch.arange(count, device=device)

    def rows(length: int) -> Tensor:
        turn = torch.outer(frequency, torch.arange(length, device=device)) % window
        real, imaginary = cosine[turn], -sine[turn[1:]]
        return torch.cat([real, imaginary, real[1:] + imaginary]).to(like.dtype)

    turn = torch.outer(torch.arange(past, past + size, device=device), frequency) % window
    real, imaginary = 2 / window * cosine[turn], -2 / window * sine[turn[:, 1:]]
    real[:, 0] /= 2
    # real part: first - second; imaginary part: third - first - second
    first = torch.cat([real[:, :1], real[:, 1:] - imaginary], dim=1)
    after = torch.cat([first, -real[:, 1:] - imaginary, imaginary], dim=1)
    return _Matrices(rows(size + past), rows(taps), after.to(like.dtype))
