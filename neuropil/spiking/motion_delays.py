"""Motion from the delays of synapses: a layer whose every synapse has a place and a delay of its own.

Grimaldi and Perrinet (2023), "Learning heterogeneous delays in a layer of spiking neurons for fast motion detection".
A neuron that listens along a line in space and time answers to what moves along it. Events are Boolean and as frequent
for one direction as for another; motion is in how they go together. So evidence is taken where the newest, middle
input is an event, and where that event is OFF, the polarities change places (this conditioning is a reconstruction:
without it a linear layer stays at chance).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn.sharing import shared_copy

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


class HeterogeneousDelayConv3d(nn.Module):
    """Evidence for motions from events: a causal convolution over time and space, each tap a synapse with its delay.

    `forward` maps events `[batch, 2, time, height, width]` (ON and OFF, 0 or 1) to the evidence of every class at every
    place and step that has a full past, `[batch, classes, time - delays + 1, height - size + 1, width - size + 1]`.
    `at` gives it for single events, with the polarities as seen from the event: train on that, by logistic regression.

    Args:
        classes: Number of motions.
        delays: Steps that synapses look back, the newest included, >= 1.
        size: Side of the receptive field in pixels, odd.
        cone: Keep only synapses within the radius that a motion of `speed` reaches within a delay (and a pixel).
        speed: Pixels a step, > 0, for the cone.

    Raises:
        ConfigError: A setting is out of range.
        ShapeError: Events do not fit.

    >>> layer = HeterogeneousDelayConv3d(8, delays=9, size=9)
    >>> layer((torch.rand(1, 2, 20, 32, 32) < 0.05).float()).shape
    torch.Size([1, 8, 12, 24, 24])
    """

    reach: Tensor

    def __init__(
        self, classes: int, *, delays: int = 9, size: int = 9, cone: bool = False, speed: float = 1.0
    ) -> None:
        super().__init__()
        for name, count in (("classes", classes), ("delays", delays)):
            if count < 1:
                raise ConfigError(f"HeterogeneousDelayConv3d.{name}: got {count}, expected at least 1")
        if size < 1 or size % 2 == 0:
            raise ConfigError(f"HeterogeneousDelayConv3d.size: got {size}, expected an odd number of pixels")
        if not (speed > 0 and math.isfinite(speed)):
            raise ConfigError(f"HeterogeneousDelayConv3d.speed: got {speed}, expected a finite number > 0")
        self.classes, self.delays, self.size = classes, delays, size
        self.weight = nn.Parameter(torch.zeros(classes, 2, delays, size, size))
        self.bias = nn.Parameter(torch.zeros(classes))
        away = torch.arange(size) - size // 2
        distance = (away.unsqueeze(0) ** 2 + away.unsqueeze(1) ** 2).sqrt()
        delay = torch.arange(delays - 1, -1, -1).view(-1, 1, 1)  # the newest step is the last tap
        reach = distance <= speed * delay + 1 if cone else torch.ones(delays, size, size, dtype=torch.bool)
        self.register_buffer("reach", reach)

    def forward(
        self, events: Float[Tensor, "batch 2 time height width"]
    ) -> Float[Tensor, "batch classes t h w"]:
        """Evidence everywhere, polarities as they are."""
        if events.dim() != 5 or events.shape[1] != 2:
            raise ShapeError(
                f"HeterogeneousDelayConv3d: events have shape {list(events.shape)}, "
                "expected [batch, 2, time, height, width]"
            )
        return functional.conv3d(events, self.weight * self.reach, self.bias)

    def at(self, windows: Float[Tensor, "events 2 delays size size"]) -> Float[Tensor, "events classes"]:
        """Evidence at single events, from `event_windows`."""
        if windows.shape[1:] != self.weight.shape[1:]:
            raise ShapeError(
                f"HeterogeneousDelayConv3d.at: windows have shape {list(windows.shape)}, "
                f"expected [events, {', '.join(map(str, self.weight.shape[1:]))}]"
            )
        return functional.linear(
            windows.flatten(1).to(self.weight.dtype), (self.weight * self.reach).flatten(1), self.bias
        )

    def extra_repr(self) -> str:
        """Sizes, for `repr`."""
        return f"{self.classes}, delays={self.delays}, size={self.size}"


def event_voxels(
    events: Bool[Tensor, "2 time height width"], delays: int, size: int
) -> Int[Tensor, "events 3"]:
    """Step, row and column of every event that has a full past and a full receptive field.

    >>> events = torch.zeros(2, 4, 5, 5, dtype=torch.bool)
    >>> events[1, 3, 2, 2] = events[0, 0, 2, 2] = True
    >>> event_voxels(events, delays=3, size=3).tolist()
    [[3, 2, 2]]
    """
    half = size // 2
    inside = torch.zeros_like(events[0])
    inside[delays - 1 :, half : inside.shape[1] - half, half : inside.shape[2] - half] = True
    return (events.any(0) & inside).nonzero()


def event_windows(
    events: Bool[Tensor, "2 time height width"],
    voxels: Int[Tensor, "events 3"],
    delays: int,
    size: int,
    *,
    swap: bool = True,
) -> Bool[Tensor, "events 2 delays size size"]:
    """What a receptive field around each voxel holds; with `swap`, polarities change places where the centre is OFF.

    >>> events = torch.zeros(2, 1, 1, 1, dtype=torch.bool)
    >>> events[1] = True  # OFF
    >>> event_windows(events, torch.zeros(1, 3).long(), 1, 1).flatten().tolist()
    [True, False]
    """
    half = size // 2
    step = (voxels[:, 0, None] - delays + 1 + torch.arange(delays))[:, :, None, None]
    row = (voxels[:, 1, None] - half + torch.arange(size))[:, None, :, None]
    column = (voxels[:, 2, None] - half + torch.arange(size))[:, None, None, :]
    found = events[:, step, row, column].transpose(0, 1)
    if not swap:
        return found
    off = events[1, voxels[:, 0], voxels[:, 1], voxels[:, 2]]
    return torch.where(off.view(-1, 1, 1, 1, 1), found.flip(1), found)


def whitened(image: Float[Tensor, "height width"], *, cutoff: float = 0.35) -> Float[Tensor, "height width"]:
    """The image with an even spectrum up to `cutoff` (cycles a pixel), mean 0 and standard deviation 1.

    >>> round(float(whitened(torch.rand(16, 16)).std()), 3)
    1.0
    """
    rows = torch.fft.fftfreq(image.shape[0]).unsqueeze(1)
    frequency = (rows**2 + torch.fft.rfftfreq(image.shape[1]) ** 2).sqrt()
    gain = frequency * torch.exp(-((frequency / cutoff) ** 4))
    white = torch.fft.irfft2(torch.fft.rfft2(image) * gain, s=image.shape)
    even: Tensor = (white - white.mean()) / white.std()
    return even


def moving_events(
    image: Float[Tensor, "height width"],
    path: Float[Tensor, "time+1 2"],
    *,
    threshold: float,
    window: int | None = None,
) -> Bool[Tensor, "2 time side side"]:
    """ON and OFF events of an image that moves along `path` (rows and columns of displacement, in pixels).

    Steps between pixels are shifts of the image's phases, so the image comes in again at the other side. A pixel fires
    when what its light has changed since the last event, less the threshold then, is beyond `threshold`; `window` keeps
    the middle pixels. Raises ConfigError when the threshold is not > 0.

    >>> bar = torch.zeros(8, 8)
    >>> bar[:, 3] = 1
    >>> moving_events(bar, torch.tensor([[0.0, 0.0], [0.0, 1.0]]), threshold=0.5)[:, 0, 0].int().tolist()
    [[0, 0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0]]
    """
    if not threshold > 0:
        raise ConfigError(f"moving_events.threshold: got {threshold}, expected a number > 0")
    height, width = image.shape
    turns = path[:, :1, None] * torch.fft.fftfreq(height).view(1, -1, 1)
    turns = turns + path[:, 1:, None] * torch.fft.rfftfreq(width)
    phases = torch.polar(torch.ones_like(turns), -2 * torch.pi * turns)
    movie = torch.fft.irfft2(torch.fft.rfft2(image) * phases, s=(height, width))
    if window is not None:
        top, left = (height - window) // 2, (width - window) // 2
        movie = movie[:, top : top + window, left : left + window]
    residual, events = torch.zeros_like(movie[0]), []
    for change in movie.diff(dim=0):
        residual = residual + change
        on, off = residual > threshold, residual < -threshold
        residual = residual - threshold * on + threshold * off
        events.append(torch.stack([on, off]))
    return torch.stack(events, dim=1)


def prune_synapses(layer: HeterogeneousDelayConv3d, share: float) -> HeterogeneousDelayConv3d:
    """A layer without the `share` of synapses of smallest weight, all classes together.

    >>> layer = HeterogeneousDelayConv3d(1, delays=1, size=1)
    >>> _ = layer.weight.data.copy_(torch.tensor([1.0, -2.0]).view(1, 2, 1, 1, 1))
    >>> prune_synapses(layer, 0.5).weight.flatten().tolist()
    [0.0, -2.0]
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"prune_synapses.share: got {share}, expected a number from 0 to 1")
    twin = shared_copy(layer)
    size = layer.weight.detach().abs().flatten()
    kept = torch.ones_like(size)
    kept[size.argsort()[: round(share * len(size))]] = 0
    twin.weight = nn.Parameter(layer.weight.detach() * kept.view(layer.weight.shape))
    return twin


def keep_shortest_delays(layer: HeterogeneousDelayConv3d, count: int) -> HeterogeneousDelayConv3d:
    """A layer with synapses of the `count` shortest delays only; 1 keeps what comes without delay.

    >>> layer = HeterogeneousDelayConv3d(1, delays=3, size=1)
    >>> _ = nn.init.ones_(layer.weight)
    >>> keep_shortest_delays(layer, 1).weight[0, 0].flatten().tolist()
    [0.0, 0.0, 1.0]
    """
    if not 1 <= count <= layer.delays:
        raise ConfigError(f"keep_shortest_delays.count: got {count}, expected 1 to {layer.delays}")
    twin = shared_copy(layer)
    kept = torch.arange(layer.delays) >= layer.delays - count
    twin.weight = nn.Parameter(layer.weight.detach() * kept.view(-1, 1, 1))
    return twin
