"""Networks that are counted here and by NeuroBench."""

from __future__ import annotations

import torch
from torch import nn

NETS = {
    "dense": lambda: nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5, bias=False), nn.ReLU(), nn.Linear(5, 2)
    ),
    "conv": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(64, 3),
    ),
    "row": lambda: nn.Sequential(nn.Conv1d(2, 3, 3, dilation=2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)),
}
SHAPES = {"dense": (9, 6), "conv": (3, 2, 8, 8), "row": (5, 2, 10)}
CASES = [f"{name}-{kind}" for name in NETS for kind in ("graded", "spikes")]


def made(case):
    """A network with some weights at zero, and an input of graded numbers or of spikes."""
    name, _, kind = case.partition("-")
    torch.manual_seed(0)
    net, x = NETS[name](), torch.randn(SHAPES[name]).relu()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter[parameter.abs() < 0.1] = 0
    return net, x if kind == "graded" else x.sign()
