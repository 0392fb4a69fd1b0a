"""Claims: falsifiable comparisons between the arms of a study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True)
class Claim:
    """`left` compared with `right` (or with nothing), each written `arm.metric`.

    The quantity judged is `left - right`, paired by seed. `kind` says what is claimed of its 95 % confidence
    interval: `exceeds` puts it above `margin`, `within` puts it inside `[-margin, margin]`.
    """

    text: str
    left: str
    right: str | None
    margin: float
    kind: Literal["exceeds", "within"] = "exceeds"
    primary: bool = False

    @property
    def arms(self) -> frozenset[str]:
        """Arms that must have run before the claim can be judged."""
        return frozenset(side.split(".")[0] for side in (self.left, self.right) if side)


def exceeds(left: str, right: str, *, by: float, text: str, primary: bool = False) -> Claim:
    """`left` is larger than `right` by at least `by`; a negative `by` claims no worse than that."""
    return Claim(text, left, right, by, "exceeds", primary)


def at_least(left: str, value: float, *, text: str, primary: bool = False) -> Claim:
    """`left` is at least `value` on its own."""
    return Claim(text, left, None, value, "exceeds", primary)


def equivalent(left: str, right: str, *, within: float, text: str, primary: bool = False) -> Claim:
    """`left` and `right` differ by less than `within`, either way: how a null result is claimed."""
    return Claim(text, left, right, within, "within", primary)
