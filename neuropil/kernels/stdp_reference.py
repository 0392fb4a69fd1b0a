"""Plasticity step by step in plain torch: the definition that the compiled run is held against."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuropil.errors import DataError
from neuropil.kernels.stdp_rules import Terms


def plastic_reference(
    pre: Tensor,
    post: Tensor,
    weight: Tensor,
    terms: Terms,
    state: Any,
    reward: Tensor,
    decay: Tensor,
    threshold: Tensor,
    driven: bool,
    zero: bool,
) -> tuple[Tensor, ...]:
    """Spikes, weight and the six fields of the state, as the equations of `neuropil.kernels.stdp` read.

    Every weight is looked at in every step. Arguments as there; `post` is empty if `driven`.
    """
    if not ((pre == 0) | (pre == 1)).all():
        raise DataError("plasticity: input values are neither 0 nor 1")
    x, x_slow, y, y_slow, eligibility, v = state
    rewarded = len(reward) > 0 or len(eligibility) > 0
    low, high = (-torch.inf, torch.inf) if rewarded else (terms.minimum, terms.maximum)
    spikes = []
    for t, s in enumerate(pre.unbind(0)):
        x_slow, y, y_slow = (
            terms.slow_pre_decay * x_slow,
            terms.post_decay * y,
            terms.slow_post_decay * y_slow,
        )
        x = terms.pre_decay * x + s
        if driven:
            u = decay * v + weight @ s
            z = (u - threshold >= 0).to(u.dtype)
            v = u * (1 - z) if zero else u - threshold * z
        else:
            z = post[t]
        marks = terms.eligibility_decay * eligibility if rewarded else weight
        down = torch.outer(y, s * (terms.depression + terms.triplet_depression * x_slow))
        marks = (marks - (down * (marks - low) if terms.multiplicative else down)).clamp(low, high)
        up = torch.outer(z * (terms.potentiation + terms.triplet_potentiation * y_slow), x - terms.target)
        room = torch.where(up >= 0, high - marks, marks - low)
        marks = (marks + (up * room if terms.multiplicative else up)).clamp(low, high)
        if rewarded:
            eligibility = marks
            weight = (weight + terms.rate * reward[t] * marks).clamp(terms.minimum, terms.maximum)
        else:
            weight = marks
        x_slow, y, y_slow = x_slow + s, y + z, y_slow + z
        spikes.append(z)
    all_spikes = torch.stack(spikes) if spikes else pre.new_empty(0, len(weight))
    if not terms.triplet_depression:  # not needed, not kept
        x_slow = state[1]
    return all_spikes, weight, x, x_slow, y, y_slow, eligibility, v
