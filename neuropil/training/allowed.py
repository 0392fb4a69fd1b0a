"""Restricting an answer to the classes of the task at hand."""

from __future__ import annotations

import torch
from torch import Tensor

from neuropil.errors import LabelError

Classes = tuple[int, ...] | Tensor | None  # of the whole batch, or a mask [batch, classes]


def restrict(logits: Tensor, classes: Classes) -> Tensor:
    """Logits `[..., batch, outputs]` with those outside `classes` at minus infinity; `None` allows all.

    This is how one output layer serves as one head per task: a head is a block of its rows.

    Raises:
        LabelError: a class is no output of the model.

    >>> restrict(torch.tensor([[1.0, 2.0, 3.0]]), (0, 2))
    tensor([[1., -inf, 3.]])
    """
    if classes is None:
        return logits
    outputs = logits.shape[-1]
    if isinstance(classes, Tensor):
        mask = (
            classes
            if classes.shape[-1] == outputs
            else torch.nn.functional.pad(classes, (0, outputs - classes.shape[-1]))
        )
        return logits.masked_fill(~mask.to(logits.device), -torch.inf)
    if max(classes) >= outputs or min(classes) < 0:
        raise LabelError(
            f"classes {list(classes)}: the model has {outputs} outputs, expected 0 to {outputs - 1}"
        )
    mask = torch.ones(outputs, dtype=torch.bool, device=logits.device)
    mask[list(classes)] = False
    return logits.masked_fill(mask, -torch.inf)


def class_mask(per_sample: list[tuple[int, ...]], outputs: int) -> Tensor:
    """Mask `[batch, outputs]` of the answers allowed for each sample."""
    rows: dict[tuple[int, ...], Tensor] = {}
    for classes in set(per_sample):
        rows[classes] = torch.zeros(outputs, dtype=torch.bool)
        rows[classes][list(classes)] = True
    return torch.stack([rows[classes] for classes in per_sample])
