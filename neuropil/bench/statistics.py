"""Judging claims: Student-t intervals of paired differences."""

from __future__ import annotations

from collections.abc import Sequence

from neuropil.bench.claim import Claim
from neuropil.bench.result import Judgement


def judge(
    claim: Claim, left: Sequence[float | None], right: Sequence[float | None] | None = None
) -> Judgement:
    """A claim judged on its sides' values, one per seed. (being written)"""
    raise NotImplementedError
