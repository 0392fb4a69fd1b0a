from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from neuropil.errors import ConfigError, ShapeError
from neuropil.spiking import (
    HeterogeneousDelayConv3d,
    event_voxels,
    event_windows,
    keep_shortest_delays,
    moving_events,
    prune_synapses,
    whitened,
)


def layer(**settings: object) -> HeterogeneousDelayConv3d:
    made = HeterogeneousDelayConv3d(3, delays=4, size=3, **settings)
    nn.init.normal_(made.weight)
    nn.init.normal_(made.bias)
    return made


def motion_layer(**settings: object):
    return layer(**settings), torch.rand(2, 2, 6, 5, 5)


def edit(change):
    return change, layer(), torch.rand(2, 2, 6, 5, 5)


PARTS = [
    ("module", motion_layer),
    ("module", partial(motion_layer, cone=True)),
    ("edit", partial(edit, partial(prune_synapses, share=0.5))),
    ("edit", partial(edit, partial(keep_shortest_delays, count=2))),
]


def events(seed: int = 0) -> torch.Tensor:
    on = torch.rand(10, 12, 12, generator=torch.Generator().manual_seed(seed))
    return torch.stack([on < 0.1, on > 0.9])


def test_evidence_is_the_sum_over_synapses_and_their_delays():
    """The paper's equation, term by term: nothing of the future, the newest step at delay 0."""
    one, seen = layer(), events().float()
    y = one(seen.unsqueeze(0))[0]
    for t, row, column in ((0, 0, 0), (6, 9, 9), (3, 4, 5)):
        for c in range(3):
            total = one.bias[c].clone()
            for p in range(2):
                for delay in range(4):
                    for a in range(3):
                        for b in range(3):
                            total += (
                                one.weight[c, p, 3 - delay, a, b]
                                * seen[p, t + 3 - delay, row + a, column + b]
                            )
            assert_close(y[c, t, row, column], total)


def test_single_events_agree_with_the_convolution():
    one, seen = layer(), events()
    voxels = event_voxels(seen, 4, 3)
    everywhere = one(seen.unsqueeze(0).float())[0]
    there = everywhere[:, voxels[:, 0] - 3, voxels[:, 1] - 1, voxels[:, 2] - 1].mT
    assert_close(one.at(event_windows(seen, voxels, 4, 3, swap=False)), there)
    off = seen[1, voxels[:, 0], voxels[:, 1], voxels[:, 2]]
    swapped = one(seen.flip(0).unsqueeze(0).float())[0]
    there[off] = swapped[:, voxels[:, 0] - 3, voxels[:, 1] - 1, voxels[:, 2] - 1].mT[off]
    assert_close(one.at(event_windows(seen, voxels, 4, 3)), there)


def test_the_centre_of_a_swapped_window_is_on_and_negatives_look_alike():
    seen = events()
    voxels = event_voxels(seen, 4, 3)
    windows = event_windows(seen, voxels, 4, 3)
    assert windows[:, 0, -1, 1, 1].all() and not windows[:, 1, -1, 1, 1].any()
    assert torch.equal(windows, event_windows(seen.flip(0), voxels, 4, 3))


def test_the_cone_widens_with_the_delay():
    reach = HeterogeneousDelayConv3d(1, delays=3, size=5, cone=True).reach
    assert [int(reach[2 - delay].sum()) for delay in range(3)] == [5, 13, 25]


def test_an_image_moves_as_its_path_says():
    """A shift by whole pixels is a roll; there and back again leaves no light changed."""
    image = whitened(torch.rand(16, 16, generator=torch.Generator().manual_seed(0)))
    path = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    seen = moving_events(image, path, threshold=0.7)
    change = torch.roll(image, (1, 2), (0, 1)) - image
    assert torch.equal(seen[0, 0], change > 0.7) and torch.equal(seen[1, 0], change < -0.7)
    still = moving_events(image, torch.zeros(4, 2), threshold=0.1)
    assert not still.any()
    assert moving_events(image, path, threshold=0.7, window=6).shape == (2, 1, 6, 6)


def test_whitening_evens_the_spectrum():
    g = torch.Generator().manual_seed(0)
    rough = torch.rand(64, 64, generator=g).cumsum(0).cumsum(1)
    power = torch.fft.rfft2(whitened(torch.fft.irfft2(torch.fft.rfft2(rough)))).abs().square()
    frequency = (torch.fft.fftfreq(64)[:, None] ** 2 + torch.fft.rfftfreq(64) ** 2).sqrt()
    high = power[frequency > 0.5].sum() / power.sum()
    assert high < 0.05


def test_a_layer_learns_to_tell_left_from_right():
    g = torch.Generator().manual_seed(0)
    image = whitened(torch.rand(40, 40, generator=g))
    x, y = [], []
    for label, sign in enumerate((1.0, -1.0)):
        path = torch.stack([torch.zeros(20), sign * torch.arange(20.0)], dim=1)
        seen = moving_events(image, path, threshold=1.0)
        voxels = event_voxels(seen, 4, 5)
        voxels = voxels[torch.randperm(len(voxels), generator=g)[:300]]
        x.append(event_windows(seen, voxels, 4, 5))
        y.append(torch.full((300,), label))
    windows, labels = torch.cat(x), torch.cat(y)
    one = HeterogeneousDelayConv3d(2, delays=4, size=5)
    optimizer = torch.optim.Adam(one.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(one.at(windows), labels).backward()
        optimizer.step()
    answers = one.at(windows).log_softmax(-1)
    assert all(answers[labels == label].sum(0).argmax() == label for label in range(2))


def test_pruning_keeps_the_largest_and_delays_keep_the_shortest():
    one = layer()
    pruned = prune_synapses(one, 0.9).weight
    kept = pruned != 0
    assert int(kept.sum()) == one.weight.numel() - round(0.9 * one.weight.numel())
    assert one.weight[kept].abs().min() >= one.weight[~kept].abs().max()
    short = keep_shortest_delays(one, 2).weight
    assert not short[:, :, :2].any() and torch.equal(short[:, :, 2:], one.weight[:, :, 2:])


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda: HeterogeneousDelayConv3d(0), ConfigError, "classes: got 0"),
        (lambda: HeterogeneousDelayConv3d(2, size=4), ConfigError, "size: got 4, expected an odd"),
        (lambda: HeterogeneousDelayConv3d(2, speed=math.nan), ConfigError, "speed: got nan"),
        (lambda: layer()(torch.zeros(1, 3, 6, 5, 5)), ShapeError, r"expected \[batch, 2, time"),
        (lambda: layer().at(torch.zeros(1, 2, 4, 5, 5)), ShapeError, "expected \\[events, 2, 4, 3, 3\\]"),
        (lambda: moving_events(torch.zeros(4, 4), torch.zeros(2, 2), threshold=0), ConfigError, "got 0"),
        (lambda: prune_synapses(layer(), 1.5), ConfigError, "share: got 1.5"),
        (lambda: keep_shortest_delays(layer(), 5), ConfigError, "count: got 5, expected 1 to 4"),
    ],
)
def test_bad_settings_get_one_line(act, error, words):
    with pytest.raises(error, match=words) as caught:
        act()
    assert "\n" not in str(caught.value)
