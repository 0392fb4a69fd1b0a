"""Rules of spike-timing-dependent plasticity: what a pair, a triplet, a trace or a reward does to a weight.

Decays are factors per step, `exp(-dt / tau)`. What the numbers mean is said in `neuropil.kernels.stdp`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, get_args

from neuropil.errors import ConfigError, nearest

Bounds = Literal["additive", "multiplicative"]


class Terms(NamedTuple):
    """The numbers of a rule in the one form that all of them share."""

    potentiation: float
    depression: float
    pre_decay: float
    post_decay: float
    minimum: float
    maximum: float
    multiplicative: bool = False
    triplet_potentiation: float = 0.0
    triplet_depression: float = 0.0
    slow_pre_decay: float = 0.0
    slow_post_decay: float = 0.0
    target: float = 0.0
    eligibility_decay: float = 1.0
    rate: float = 1.0


@dataclass(frozen=True)
class Rule:
    """What rules share: the range of the weights, and checks of every field."""

    minimum: float = 0.0
    maximum: float = 1.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "bounds":
                if value not in get_args(Bounds):
                    raise ConfigError(f"{name}.bounds: got {value!r}{nearest(str(value), get_args(Bounds))}")
            elif field.name.endswith("decay"):
                if not 0 <= value < 1:
                    raise ConfigError(f"{name}.{field.name}: got {value}, expected a decay in [0, 1)")
            elif not math.isfinite(value):
                raise ConfigError(f"{name}.{field.name}: got {value}, expected a finite number")
        if not self.minimum < self.maximum:
            raise ConfigError(
                f"{name}.maximum: got {self.maximum}, expected more than minimum={self.minimum}"
            )

    def terms(self) -> Terms:
        """The rule's numbers."""
        raise TypeError(f"{type(self).__name__} must define terms()")


@dataclass(frozen=True)
class PairSTDP(Rule):
    """Every pair of spikes counts. Song, Miller and Abbott (2000); multiplicative: van Rossum et al. (2000).

    `bounds="multiplicative"` scales by the distance to the bound. Raises ConfigError when a field is out of range.

    >>> PairSTDP(depression=0.012).terms().depression
    0.012
    """

    potentiation: float = 0.01
    depression: float = 0.01
    pre_decay: float = 0.95
    post_decay: float = 0.95
    bounds: Bounds = "additive"

    def terms(self) -> Terms:
        """The rule's numbers."""
        return Terms(
            self.potentiation,
            self.depression,
            self.pre_decay,
            self.post_decay,
            self.minimum,
            self.maximum,
            self.bounds == "multiplicative",
        )


@dataclass(frozen=True)
class TripletSTDP(PairSTDP):
    """Pairs count more the more the neuron that spikes has spiked before. Pfister and Gerstner (2006).

    >>> TripletSTDP(triplet_potentiation=0.02).terms().triplet_potentiation
    0.02
    """

    triplet_potentiation: float = 0.01
    triplet_depression: float = 0.0
    slow_pre_decay: float = 0.99
    slow_post_decay: float = 0.99

    def terms(self) -> Terms:
        """The rule's numbers."""
        return (
            super()
            .terms()
            ._replace(
                triplet_potentiation=self.triplet_potentiation,
                triplet_depression=self.triplet_depression,
                slow_pre_decay=self.slow_pre_decay,
                slow_post_decay=self.slow_post_decay,
            )
        )


@dataclass(frozen=True)
class TraceHebbian(Rule):
    """A postsynaptic spike strengthens inputs whose trace is above `target` and weakens the rest.

    Diehl and Cook (2015), "Unsupervised learning of digit recognition using spike-timing-dependent plasticity".

    >>> TraceHebbian(target=0.4).terms().depression
    0.0
    """

    potentiation: float = 0.01
    target: float = 0.0
    pre_decay: float = 0.95
    bounds: Bounds = "additive"

    def terms(self) -> Terms:
        """The rule's numbers."""
        multiplicative = self.bounds == "multiplicative"
        return Terms(
            self.potentiation,
            0.0,
            self.pre_decay,
            0.0,
            self.minimum,
            self.maximum,
            multiplicative,
            target=self.target,
        )


@dataclass(frozen=True)
class RewardSTDP(Rule):
    """Pairs mark a synapse as eligible, the mark decays, a reward turns it into weight. Izhikevich (2007).

    Per step, after decay and pairing: `w += rate * reward * eligibility`, clipped.

    >>> RewardSTDP(rate=0.5).terms().rate
    0.5
    """

    potentiation: float = 1.0
    depression: float = 1.0
    pre_decay: float = 0.95
    post_decay: float = 0.95
    eligibility_decay: float = 0.99
    rate: float = 0.01

    def terms(self) -> Terms:
        """The rule's numbers."""
        return Terms(
            self.potentiation,
            self.depression,
            self.pre_decay,
            self.post_decay,
            self.minimum,
            self.maximum,
            eligibility_decay=self.eligibility_decay,
            rate=self.rate,
        )
