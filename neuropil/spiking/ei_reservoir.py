"""Reservoirs of excitatory and inhibitory units that balance themselves before their readout learns.

Boosting Reservoir Computing with Brain-inspired Adaptive Dynamics (2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.special import expit, logit

from neuropil.errors import ConfigError, ShapeError
from neuropil.kernels.reservoir import leaky_reservoir_scan
from neuropil.spiking.arrays import check_whole, counts_array, finite_array
from neuropil.spiking.reservoir_estimator import (
    Array,
    Reading,
    Reservoir,
    ReservoirClassifier,
    ReservoirRegressor,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_LEAST = float(np.finfo(float).tiny)  # weakest inhibition: nothing, but a connection that is still there
TargetRate = float | tuple[float, float] | Any  # a rate, a and b of a Beta distribution, or `[units]`


@dataclass(frozen=True)
class InhibitoryHomeostasis:
    """Every unit learns its inhibition until it is active at its target rate: `A_ij += lr (r_i - target_i)`.

    Args:
        target_rate: Rate in (0, 1) that units are to have on average: one number, `[units]` numbers, or a pair
            `(a, b)`: each unit draws its own from Beta(a, b), as `(2, 2)` in the paper.
        lr: Rate of the first step, > 0.
        final_lr: Rate of the last step, > 0; in between it falls geometrically.
        steps: Steps of input that are adapted to; the sequences are gone through again where they are fewer.

    Raises ConfigError for a setting out of range.

    >>> InhibitoryHomeostasis(target_rate=(2.0, 2.0)).steps
    2000
    """

    target_rate: TargetRate = 0.5
    lr: float = 1e-2
    final_lr: float = 1e-3
    steps: int = 2000

    def __post_init__(self) -> None:
        _check_target("InhibitoryHomeostasis", self.target_rate)
        check_whole("InhibitoryHomeostasis", "steps", self.steps, 1)
        for name in ("lr", "final_lr"):
            if not 0 < getattr(self, name) < np.inf:
                raise ConfigError(f"InhibitoryHomeostasis.{name}: got {getattr(self, name)}, expected > 0")


@dataclass(frozen=True)
class InhibitoryDesign:
    """The inhibition of every unit is scaled at once so that target rates balance its drive; see `design_inhibition`.

    `target_rate` as for `InhibitoryHomeostasis`.

    >>> InhibitoryDesign(0.3).target_rate
    0.3
    """

    target_rate: TargetRate = 0.5

    def __post_init__(self) -> None:
        _check_target("InhibitoryDesign", self.target_rate)


def adapt_inhibition(
    excitation: ArrayLike,
    inhibition: ArrayLike,
    drive: ArrayLike,
    target_rate: ArrayLike,
    *,
    gain: float = 10.0,
    threshold: float = 0.0,
    lr: ArrayLike = 1e-2,
    rates: ArrayLike | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Run `r <- sigmoid(gain (A_E r - A_I r + drive - threshold))` and let existing inhibition learn at every step.

    `A_I[i, j] <- max(0, A_I[i, j] + lr (r_i - target_i))` where a connection exists: who is too active is inhibited
    more. Inhibition never turns into excitation; a connection that has shrunk to nothing can grow again.

    Args:
        excitation: Not negative, `[units, units]`, row `i` what unit `i` receives.
        inhibition: The same; connections are its entries other than zero.
        drive: What the input adds to each unit, `[time, units]`.
        target_rate: In (0, 1), one number or `[units]`.
        gain, threshold: Of the units.
        lr: Rate of every step, one number or `[time]`.
        rates: Of the units before, `[units]`; one half by default.

    Returns:
        The inhibition after the run and the rates `[units]` in its last step.

    Raises ShapeError, DataError or ConfigError when the arguments do not fit together.

    >>> A_E, A_I = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[0.0, 0.2], [0.2, 0.0]])  # too much excitation
    >>> A_I, rates = adapt_inhibition(A_E, A_I, np.zeros((3000, 2)), 0.3)
    >>> rates.round(3).tolist()
    [0.3, 0.3]
    """
    caller = "adapt_inhibition"
    E, I, u = _matrices(caller, excitation, inhibition, drive)  # noqa: E741
    target = _targets(caller, target_rate, len(E))
    rate = np.broadcast_to(counts_array(caller, "lr", lr, (0, 1)), len(u))
    r = np.full(len(E), 0.5) if rates is None else finite_array(caller, "rates", rates, (1,))
    if len(r) != len(E):
        raise ShapeError(f"{caller}: {len(r)} rates, expected one for each of {len(E)} units")
    excites, inhibits = csr_array(E), csr_array(I)
    receiver = np.repeat(np.arange(len(E)), np.diff(inhibits.indptr))
    for step in range(len(u)):
        r = expit(gain * (excites @ r - inhibits @ r + u[step] - threshold))
        inhibits.data += (rate[step] * (r - target))[receiver]
        np.maximum(inhibits.data, _LEAST, out=inhibits.data)
    return inhibits.toarray(), r


def design_inhibition(
    excitation: ArrayLike,
    inhibition: ArrayLike,
    target_rate: ArrayLike,
    *,
    mean_drive: ArrayLike = 0.0,
    gain: float = 10.0,
    threshold: float = 0.0,
) -> NDArray[np.float64]:
    """Inhibition whose rows are scaled so that target rates are a fixed point under the mean input.

    Row `i` is multiplied by `(A_E target + mean_drive - threshold - logit(target) / gain)_i / (A_I target)_i`, at
    least 0: one step instead of many, right on average where rates hardly move. A unit without inhibition stays as it
    is, and so does one that would need excitation instead: its row becomes zero.

    Arguments and errors as for `adapt_inhibition`; `mean_drive` is what the input adds on average, a number or
    `[units]`.

    >>> A_E, A_I = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[0.0, 0.2], [0.2, 0.0]])
    >>> designed = design_inhibition(A_E, A_I, 0.3)
    >>> expit(10 * (A_E - designed) @ [0.3, 0.3]).round(6).tolist()
    [0.3, 0.3]
    """
    caller = "design_inhibition"
    E, I, _ = _matrices(caller, excitation, inhibition, None)  # noqa: E741
    target = _targets(caller, target_rate, len(E))
    drive = np.broadcast_to(finite_array(caller, "mean_drive", mean_drive, (0, 1)), len(E))
    wanted = E @ target + drive - threshold - logit(target) / gain
    has = I @ target
    scale = np.divide(wanted, has, out=np.ones(len(E)), where=has > 0)
    designed: Array = np.maximum(scale, 0.0)[:, None] * I
    return designed


class _EIReservoir(Reservoir):
    """The units of an E/I reservoir."""

    def __init__(
        self,
        units: int = 200,
        *,
        excitatory: float = 0.8,
        in_degree: int = 50,
        balance: float = 1.0,
        gain: float = 10.0,
        threshold: float = 0.0,
        input_scale: float = 0.5,
        input_density: float = 0.3,
        adaptation: InhibitoryHomeostasis | InhibitoryDesign | None = None,
        washout: int = 0,
        reading: Reading = "steps",
        use_inputs: bool = False,
        alpha: float = 1e-6,
        random_state: int | None = None,
    ) -> None:
        self.units = units
        self.excitatory = excitatory
        self.in_degree = in_degree
        self.balance = balance
        self.gain = gain
        self.threshold = threshold
        self.input_scale = input_scale
        self.input_density = input_density
        self.adaptation = adaptation
        self.washout = washout
        self.reading = reading
        self.use_inputs = use_inputs
        self.alpha = alpha
        self.random_state = random_state

    def _prepare(self, X: Any) -> tuple[list[tuple[Array, Array]], bool]:
        first = not hasattr(self, "readout_")
        groups, single = super()._prepare(X)
        if first and self.adaptation is not None:
            self._adapt([row for _, x in groups for row in x])
        return groups, single

    def _make(self, inputs: int, rng: np.random.Generator) -> None:
        excites, inhibits = self._check()
        from_e = round(self.in_degree * self.excitatory)
        self.excitation_ = _sparse(rng, self.units, 0, excites, from_e)
        drawn = _sparse(rng, self.units, excites, inhibits, self.in_degree - from_e)
        self.inhibition_ = self.balance * drawn
        heard = rng.random((self.units, inputs)) < self.input_density
        self.input_weight_ = heard * rng.uniform(-self.input_scale, self.input_scale, (self.units, inputs))
        if self.adaptation is not None:
            target: Any = self.adaptation.target_rate
            rates = rng.beta(target[0], target[1], self.units) if isinstance(target, tuple) else target
            # logit is infinite at 0 and 1, which a Beta distribution of small a or b comes close to
            self.target_rate_ = np.clip(_targets(type(self).__name__, rates, self.units), 1e-3, 1 - 1e-3)

    def _adapt(self, sequences: list[Array]) -> None:
        """Set inhibition by what the sequences are like."""
        units: dict[str, Any] = {"gain": self.gain, "threshold": self.threshold}
        if isinstance(self.adaptation, InhibitoryDesign):
            drive = np.concatenate(sequences).mean(0) @ self.input_weight_.T
            self.inhibition_ = design_inhibition(
                self.excitation_, self.inhibition_, self.target_rate_, mean_drive=drive, **units
            )
        elif self.adaptation is not None:
            rule, done, place = self.adaptation, 0, 0
            lr = np.geomspace(rule.lr, rule.final_lr, rule.steps)
            while done < rule.steps:
                x = sequences[place % len(sequences)][: rule.steps - done]
                self.inhibition_, _ = adapt_inhibition(
                    self.excitation_, self.inhibition_, x @ self.input_weight_.T, self.target_rate_,
                    lr=lr[done : done + len(x)], **units,
                )  # fmt: skip
                done, place = done + len(x), place + 1

    def _run(self, x: Array) -> Array:
        # sigmoid(z) = (1 + tanh(z / 2)) / 2: in y = 2 r - 1 the units are tanh units, which have a compiled run
        connections = (self.excitation_ - self.inhibition_) * (self.gain / 4)
        bias = connections.sum(1) - self.gain * self.threshold / 2
        steps = torch.from_numpy(np.ascontiguousarray(x.swapaxes(0, 1)))
        start = torch.zeros(len(x), self.units, dtype=torch.double)
        into = torch.from_numpy(self.gain / 2 * self.input_weight_)
        with torch.no_grad():
            y = leaky_reservoir_scan(
                steps, start, torch.from_numpy(connections), into, torch.from_numpy(bias)
            )
        return np.asarray((1 + y.numpy().swapaxes(0, 1)) / 2)

    def _check(self) -> tuple[int, int]:
        """Numbers of excitatory and inhibitory units; refuse settings out of range."""
        name = type(self).__name__
        for field in ("excitatory", "input_density"):
            if not 0 < getattr(self, field) <= 1 - (field == "excitatory") * 1e-9:
                raise ConfigError(f"{name}.{field}: got {getattr(self, field)}, expected a share in (0, 1)")
        for field in ("balance", "gain", "input_scale"):
            if not 0 <= getattr(self, field) < np.inf:
                raise ConfigError(
                    f"{name}.{field}: got {getattr(self, field)}, expected a finite number >= 0"
                )
        if not np.isfinite(self.threshold):
            raise ConfigError(f"{name}.threshold: got {self.threshold}, expected a finite number")
        if not isinstance(self.adaptation, InhibitoryHomeostasis | InhibitoryDesign | None):
            raise ConfigError(
                f"{name}.adaptation: got {self.adaptation!r}, expected InhibitoryHomeostasis, InhibitoryDesign or None"
            )
        excites = round(self.units * self.excitatory)
        inhibits = self.units - excites
        check_whole(name, "in_degree", self.in_degree, 2)
        from_e = round(self.in_degree * self.excitatory)
        if not (1 <= from_e <= excites and 1 <= self.in_degree - from_e <= inhibits):
            raise ConfigError(
                f"{name}.in_degree: got {self.in_degree}, expected at least one and at most all of {excites} "
                f"excitatory and {inhibits} inhibitory units, in their proportion"
            )
        return excites, inhibits


class EIReservoir(ReservoirRegressor, _EIReservoir):
    """Excitatory and inhibitory rate units that balance themselves, read by a ridge regression; a regressor.

    `r[t] = sigmoid(gain ((A_E - A_I) r[t-1] + W_in u[t] - threshold))` with `A_E` and `A_I` sparse and not negative
    (Dale's law). Each unit hears `in_degree` others whose weights add up to one from either population, so that both
    cancel at `balance=1`; below, excitation rules, above, inhibition. With `adaptation`, inhibition is set by the
    sequences of the first `fit` or `partial_fit` before the readout learns, and is frozen from then on. "Boosting
    Reservoir Computing with Brain-inspired Adaptive Dynamics" (2025). `X` is `[sequences, time, inputs]` or one
    sequence `[time, inputs]`; each begins with all rates at one half.

    Args:
        units: Number of units.
        excitatory: Share of them that excites, in (0, 1).
        in_degree: Connections that each unit receives, of either kind in proportion.
        balance: Inhibition over excitation at the start, >= 0.
        gain: Slope of the units, >= 0.
        threshold: Drive at which a unit is at half its rate.
        input_scale: Input weights are uniform in plus and minus this.
        input_density: Share of units that hear an input, in (0, 1).
        adaptation: `InhibitoryHomeostasis`, `InhibitoryDesign`, or None: stays as drawn.
        washout: First steps of each sequence that are not learned from nor scored.
        reading: `"steps"`, `"mean"` or `"last"`, as for `EchoState`.
        use_inputs: Whether the readout sees the input beside the rates.
        alpha: Penalty of the ridge regression.
        random_state: Seed of the connections.

    Raises ConfigError for a setting out of range, ShapeError for arrays that do not fit, NonFiniteError for NaN or
    infinity. After `fit`: `excitation_`, `inhibition_` (`[units, units]`, row `i` what unit `i` receives),
    `input_weight_`, `target_rate_`, `readout_`.

    >>> u = np.random.default_rng(0).uniform(-1, 1, (1500, 1))
    >>> y = np.roll(u[:, 0], 5)  # what was five steps ago
    >>> drawn = EIReservoir(100, balance=2.0, in_degree=30, washout=20, random_state=0).fit(u[:1000], y[:1000])
    >>> rule = InhibitoryHomeostasis(steps=1000)
    >>> balanced = EIReservoir(100, balance=2.0, in_degree=30, adaptation=rule, washout=20, random_state=0)
    >>> balanced.fit(u[:1000], y[:1000]).score(u[1000:], y[1000:]) > drawn.score(u[1000:], y[1000:]) + 0.2
    True
    """


class EIReservoirClassifier(ReservoirClassifier, _EIReservoir):
    """`EIReservoir` that names the class of each sequence; settings as there.

    For one label a sequence, `reading="mean"` or `"last"`. Mean rates tell classes apart only where units bend:
    different target rates help.


    >>> t = np.arange(80) / 10
    >>> waves = [np.sin(f * t + p)[:, None] for f in (1.0, 1.6) for p in range(12)]
    >>> labels = ["slow"] * 12 + ["fast"] * 12
    >>> rule = InhibitoryHomeostasis((2.0, 2.0), steps=500)
    >>> settings = {"in_degree": 20, "input_scale": 2.0, "washout": 10, "adaptation": rule, "random_state": 0}
    >>> model = EIReservoirClassifier(60, reading="mean", **settings)
    >>> model.fit(waves[::2], labels[::2]).score(waves[1::2], labels[1::2])
    1.0
    """


def _sparse(rng: np.random.Generator, units: int, first: int, senders: int, degree: int) -> Array:
    """Weights `|N(1, 0.2)| / degree` from `degree` senders of a population to each unit."""
    weights = np.zeros((units, units))
    for row in weights:
        chosen = first + rng.choice(senders, degree, replace=False)
        row[chosen] = abs(rng.normal(1 / degree, 0.2 / degree, degree))
    return weights


def _check_target(caller: str, target: Any) -> None:
    if isinstance(target, tuple):
        if len(target) != 2 or not all(isinstance(v, int | float) and 0 < v < np.inf for v in target):
            raise ConfigError(
                f"{caller}.target_rate: got {target!r}, expected a and b > 0 of a Beta distribution"
            )
        return
    found = np.asarray(target, np.float64)
    if found.ndim > 1 or not ((found > 0) & (found < 1)).all():
        raise ConfigError(f"{caller}.target_rate: got {target!r}, expected rates in (0, 1)")


def _targets(caller: str, target: ArrayLike, units: int) -> Array:
    found = finite_array(caller, "target_rate", target, (0, 1))
    if found.ndim and len(found) != units:
        raise ShapeError(f"{caller}: {len(found)} target rates, expected one for each of {units} units")
    if not ((found > 0) & (found < 1)).all():
        raise ConfigError(
            f"{caller}: target rates from {found.min():.3g} to {found.max():.3g}, expected in (0, 1)"
        )
    return np.broadcast_to(found, units)


def _matrices(caller: str, excitation: Any, inhibition: Any, drive: Any) -> tuple[Array, Array, Array]:
    E = counts_array(caller, "excitation", excitation, (2,))
    I = counts_array(caller, "inhibition", inhibition, (2,))  # noqa: E741
    u = np.zeros((1, len(E))) if drive is None else finite_array(caller, "drive", drive, (2,))
    if E.shape != (len(E), len(E)) or I.shape != E.shape or u.shape[1] != len(E):
        raise ShapeError(
            f"{caller}: excitation {list(E.shape)}, inhibition {list(I.shape)}, drive {list(u.shape)}; expected "
            "[units, units], [units, units] and [time, units]"
        )
    return E, I, u
